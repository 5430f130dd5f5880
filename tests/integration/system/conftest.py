"""A running Chiffon on the real RabbitMQ and PostgreSQL, and one whose agents have users of their own.

The tests of a module share one: a module whose tests take `system` or `guarded` stays in one worker (`xdist_group`).
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.system.deployment import System, open_system
from tests.integration.system.rights import Guarded, open_guarded
from tests.services.postgres import Postgres
from tests.services.rabbitmq import start_managed_rabbitmq
from tests.services.rabbitmq_node import Node


@pytest.fixture(scope="module")
async def module_ledger(postgres: Postgres, ledger_template: str) -> AsyncIterator[str]:
    """The URL of a ledger that the tests of a module share."""
    url = await postgres.create_database(template=ledger_template)
    yield url
    await postgres.drop_database(url)


@pytest.fixture(scope="module")
async def module_system(
    rabbitmq: Node, module_ledger: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    async with open_system(rabbitmq.new_vhost_url(), module_ledger, tmp_path_factory.mktemp("system")) as opened:
        yield opened


@pytest.fixture
async def system(module_system: System, tmp_path: Path) -> AsyncIterator[System]:
    """The module's, without agents and with no work that waits."""
    async with module_system.for_one_test(tmp_path) as lent:
        yield lent


@pytest.fixture
async def own_system(amqp_url: str, ledger_url: str, tmp_path: Path) -> AsyncIterator[System]:
    """One that no other test has used."""
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


@pytest.fixture(scope="module")
async def module_guarded(
    managed_rabbitmq: Node, module_ledger: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    async with open_guarded(managed_rabbitmq, module_ledger, tmp_path_factory.mktemp("guarded")) as opened:
        yield opened


@pytest.fixture
async def guarded(module_guarded: Guarded, tmp_path: Path) -> AsyncIterator[Guarded]:
    """The module's, without agents and with no work that waits."""
    async with module_guarded.system.for_one_test(tmp_path) as lent:
        yield Guarded(module_guarded.rabbit, lent)


@pytest.fixture(scope="module")
def bus_url(rabbitmq: Node) -> str:
    """The broker's URL of the module's `orchestrator`."""
    return rabbitmq.new_vhost_url()


@pytest.fixture(scope="module")
async def orchestrator(
    bus_url: str, module_ledger: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    """One that the tests of a module share which leave it as it is; each has agents and tasks of its own."""
    async with open_system(bus_url, module_ledger, tmp_path_factory.mktemp("server")) as running:
        yield running
