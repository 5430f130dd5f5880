"""One orchestrator for all that is thrown at it, which must live through it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from orchestrator.database.migrate import upgrade
from tests.fuzz.running import Running, running_orchestrator
from tests.services.postgres import Postgres


@pytest.fixture(scope="session")
async def fuzzed_ledger_url(postgres: Postgres) -> str:
    """The URL of a ledger that takes everything that the fuzzers manage to store."""
    url = await postgres.create_database()
    await upgrade(url)
    return url


@pytest.fixture(scope="session")
def orchestrator(fuzzed_ledger_url: str) -> Iterator[Running]:
    with running_orchestrator(fuzzed_ledger_url) as running:
        yield running


@pytest.fixture
async def fuzzed_queues_url(postgres: Postgres) -> AsyncIterator[str]:
    """The URL of a ledger for one run of the queues."""
    url = await postgres.create_database()
    await upgrade(url)
    yield url
    await postgres.drop_database(url)
