"""Open the broker that a URL names.

Only that backend is imported: the others' libraries would cost an agent a tenth of its memory and of its start.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from common.broker.base import Broker, QueueType
from common.errors import Invalid

SCHEMES = ("amqp", "amqps", "postgresql", "file", "memory")


class UnknownBroker(Invalid, ValueError):
    def __init__(self, scheme: str) -> None:
        allowed = ", ".join(f"{known}://" for known in SCHEMES)
        super().__init__(f"No broker speaks {scheme!r}. Allowed: {allowed}.")


@asynccontextmanager
async def open_broker(url: str, *, name: str, queue_type: QueueType = QueueType.CLASSIC) -> AsyncIterator[Broker]:
    """Connect to a broker; `name` tells its operators who is connected, and `queue_type` is RabbitMQ's.

    Raises `BrokerUnavailable` when it cannot be reached, and `UnknownBroker` for a scheme that is none.
    """
    match urlsplit(url).scheme:
        case "memory":
            from common.broker.memory import MemoryBroker

            yield MemoryBroker()
        case "file":
            from common.broker.filesystem import open_file_broker

            async with open_file_broker(url) as broker:
                yield broker
        case "postgresql":
            from common.broker.postgres import open_postgres_broker

            async with open_postgres_broker(url, name=name) as broker:
                yield broker
        case "amqp" | "amqps":
            from common.broker.rabbitmq import open_rabbitmq_broker

            async with open_rabbitmq_broker(url, name=name, queue_type=queue_type) as broker:
                yield broker
        case scheme:
            raise UnknownBroker(scheme)
