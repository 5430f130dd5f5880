"""One orchestrator that serves on a real ledger, for all tests of its edges; what they store disturbs none of them."""

from collections.abc import Iterator

import pytest

from tests.fuzz.running import Running, running_orchestrator
from tests.services.postgres import Postgres


@pytest.fixture(scope="session")
async def edges_ledger_url(postgres: Postgres, ledger_template: str) -> str:
    return await postgres.create_database(template=ledger_template)


@pytest.fixture(scope="session")
def orchestrator(edges_ledger_url: str) -> Iterator[Running]:
    with running_orchestrator(edges_ledger_url) as running:
        yield running
