"""A migrated ledger for each test, copied from a template that is migrated once."""

from collections.abc import AsyncIterator

import pytest

from orchestrator.database.migrate import upgrade
from orchestrator.database.pool import Pool, open_pool
from tests.services.postgres import Postgres


@pytest.fixture(scope="session")
async def ledger_template(postgres: Postgres) -> str:
    """The URL of a migrated database to which nobody connects."""
    url = await postgres.create_database()
    await upgrade(url)
    return url


@pytest.fixture
async def ledger_url(postgres: Postgres, ledger_template: str) -> AsyncIterator[str]:
    """The URL of an empty ledger."""
    url = await postgres.create_database(template=ledger_template)
    yield url
    await postgres.drop_database(url)


@pytest.fixture
async def pool(ledger_url: str) -> AsyncIterator[Pool]:
    """Connections to an empty ledger."""
    async with open_pool(ledger_url, connections=5) as opened:
        yield opened
