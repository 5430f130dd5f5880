"""The services that tests share: a real RabbitMQ and a real PostgreSQL, each started when the first test needs it."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.services.postgres import Postgres, start_postgres
from tests.services.rabbitmq import start_rabbitmq
from tests.services.rabbitmq_node import Node

# Most tests are about something else than who asks; those about that set it to "required" themselves.
os.environ["CHIFFON_AUTHENTICATION"] = "off"


@pytest.fixture(scope="session", autouse=True)
def unsigned_work() -> Iterator[None]:
    """Agents run what nobody signed, except where a test is about signatures and asks for them."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CHIFFON_AGENT_SIGNATURES", "off")
        yield


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[Node]:
    """The RabbitMQ of this run."""
    node = start_rabbitmq()
    yield node
    node.stop()


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[Postgres]:
    """The PostgreSQL of this run."""
    server = await start_postgres()
    yield server
    await server.drop_databases()
    server.stop()


@pytest.fixture
def amqp_url(rabbitmq: Node) -> str:
    """The URL of a virtual host with nothing in it."""
    return rabbitmq.new_vhost_url()


@pytest.fixture
async def database_url(postgres: Postgres) -> AsyncIterator[str]:
    """The URL of a database with nothing in it."""
    url = await postgres.create_database()
    yield url
    await postgres.drop_database(url)
