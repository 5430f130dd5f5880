"""Every test of the contract runs on every backend; those about outages, on the backends that have a server to lose."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from common.broker.base import Address, Broker, Exchange, ExchangeType, Queue
from common.broker.topology import DEAD_LETTER_QUEUE, WORK
from tests.contract.buses import AmqpBus, Bus, MemoryBus, PostgresBus, RemoteBus
from tests.contract.proxy import Proxy
from tests.integration.conftest import ledger_template
from tests.services.postgres import Postgres

__all__ = ["ledger_template"]  # a fixture

REMOTE = ("postgresql", "amqp")


def _open_bus(kind: str, request: pytest.FixtureRequest) -> Bus:
    # Asked for by name, so that a server is started only for the tests that use it.
    match kind:
        case "memory":
            return MemoryBus()
        case "postgresql":
            return PostgresBus(request.getfixturevalue("postgres"), request.getfixturevalue("bus_database"))
        case _:
            proxy: Proxy = request.getfixturevalue("proxy")
            return AmqpBus(proxy, request.getfixturevalue("amqp_url"), request.getfixturevalue("rabbitmq"))


@pytest.fixture(scope="session")
async def bus_database(postgres: Postgres) -> AsyncIterator[str]:
    """The URL of a database in which every test of a worker has queues of its own."""
    url = await postgres.create_database()
    yield url
    await postgres.drop_database(url)


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(amqp_url) as proxy:
        yield proxy


@pytest.fixture(params=("memory", *REMOTE))
def bus(request: pytest.FixtureRequest) -> Bus:
    return _open_bus(request.param, request)


@pytest.fixture(params=REMOTE)
def remote_bus(request: pytest.FixtureRequest) -> RemoteBus:
    bus = _open_bus(request.param, request)
    assert isinstance(bus, RemoteBus)
    return bus


@pytest.fixture
async def broker(bus: Bus) -> AsyncIterator[Broker]:
    async with bus.open() as broker:
        await broker.delete(DEAD_LETTER_QUEUE.name)
        yield broker


@pytest.fixture
async def queue(broker: Broker) -> AsyncIterator[Queue]:
    """A queue with priorities."""
    queue = make_queue(has_priorities=True)
    await broker.declare(queue)
    yield queue
    await broker.delete(queue.name)


def make_queue(*, has_priorities: bool = False) -> Queue:
    name = f"test.{uuid4().hex}"
    return Queue(name, (Address(WORK, name),), has_priorities=has_priorities)


def make_exchange(kind: ExchangeType) -> Exchange:
    return Exchange(f"test.{uuid4().hex}", kind)
