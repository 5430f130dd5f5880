"""A running Chiffon on the real RabbitMQ and PostgreSQL, and one whose agents have users of their own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.system.deployment import System, open_system
from tests.integration.system.rights import Guarded, open_guarded
from tests.services.rabbitmq import start_managed_rabbitmq
from tests.services.rabbitmq_node import Node


@pytest.fixture
async def system(amqp_url: str, ledger_url: str, tmp_path: Path) -> AsyncIterator[System]:
    async with open_system(amqp_url, ledger_url, tmp_path) as opened:
        yield opened


@pytest.fixture(scope="session")
def managed_rabbitmq(rabbitmq: Node) -> Iterator[Node]:
    """A RabbitMQ with the management API: the shared one, unless somebody else runs that without it."""
    if rabbitmq.management_url is not None:
        yield rabbitmq
        return
    node = start_managed_rabbitmq()
    yield node
    node.stop()


@pytest.fixture
async def guarded(managed_rabbitmq: Node, ledger_url: str, tmp_path: Path) -> AsyncIterator[Guarded]:
    async with open_guarded(managed_rabbitmq, ledger_url, tmp_path) as opened:
        yield opened
