"""Open the broker that a URL names.

Only that backend is imported: the others' libraries would cost an agent a tenth of its memory and of its start.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from common.broker.base import Broker, QueueType
from common.errors import Invalid

SCHEMES = ("amqp", "amqps", "postgresql", "memory")
ALLOWED = (
    "amqp:// or amqps:// (RabbitMQ), postgresql:// (it may be the database of the ledger), "
    "memory:// (one process only, as with `chiffon up`)"
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class UnknownBroker(Invalid, ValueError):
    """A URL with the scheme of no broker; the message names the scheme and shows nothing else of the URL."""

    def __init__(self, url: str) -> None:
        found = _SCHEME.match(url)
        what = "the URL has no scheme" if found is None else f"{found[0]} is not a message bus"
        super().__init__(f"{what}; allowed: {ALLOWED}")


def check_broker_url(url: str) -> str:
    """Return the URL, or raise `UnknownBroker`."""
    if not url.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        raise UnknownBroker(url)
    return url


@asynccontextmanager
async def open_broker(url: str, *, name: str, queue_type: QueueType = QueueType.CLASSIC) -> AsyncIterator[Broker]:
    """Connect to a broker; `name` tells its operators who is connected, and `queue_type` is RabbitMQ's.

    Raises `BrokerUnavailable` when it cannot be reached, and `UnknownBroker` for a scheme that is none.
    """
    match urlsplit(check_broker_url(url)).scheme:
        case "memory":
            from common.broker.memory import MemoryBroker

            yield MemoryBroker()
        case "postgresql":
            from common.broker.postgres import open_postgres_broker

            async with open_postgres_broker(url, name=name) as broker:
                yield broker
        case _:
            from common.broker.rabbitmq import open_rabbitmq_broker

            async with open_rabbitmq_broker(url, name=name, queue_type=queue_type) as broker:
                yield broker
