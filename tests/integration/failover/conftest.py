"""A PostgreSQL for the tests that stop it, freeze it or take its sessions away."""

from collections.abc import AsyncIterator

import pytest

from orchestrator.database.migrate import upgrade
from tests.services.postgres import Postgres, start_embedded_postgres


@pytest.fixture(scope="session")
async def own_postgres() -> AsyncIterator[Postgres]:
    """A server that these tests may stop."""
    server = await start_embedded_postgres(durable=True)
    yield server
    server.stop()


@pytest.fixture
async def own_url(own_postgres: Postgres) -> str:
    """The URL of an empty ledger on it."""
    url = await own_postgres.create_database()
    await upgrade(url)
    return url
