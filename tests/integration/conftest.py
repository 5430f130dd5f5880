"""An empty ledger for each test."""

import hashlib
import json
from collections.abc import AsyncIterator

import pytest

from orchestrator.database.migrate import upgrade
from orchestrator.database.pool import Pool, open_pool
from orchestrator.database.version import MIGRATIONS
from tests.integration.ledger import Ledger, open_ledger
from tests.services import run
from tests.services.postgres import Postgres


@pytest.fixture(scope="session")
async def ledger_template(postgres: Postgres) -> str:
    """The URL of a migrated database without a session; all workers with the same migrations copy the same one."""
    known = run.root() / f"ledger-template-{_digest_of_migrations()}.json"
    with run.alone("ledger-template"):
        if not known.exists():
            url = await postgres.create_database()
            await upgrade(url)
            known.write_text(json.dumps(url))
    template: str = json.loads(known.read_text())
    return template


@pytest.fixture(scope="session")
async def worker_ledger(postgres: Postgres, ledger_template: str) -> AsyncIterator[Ledger]:
    """The ledger that the tests of this worker use one after another."""
    url = await postgres.create_database(template=ledger_template)
    async with open_ledger(url) as ledger:
        yield ledger


@pytest.fixture
async def own_ledger_url(postgres: Postgres, ledger_template: str) -> AsyncIterator[str]:
    """The URL of an empty ledger that no other test uses."""
    url = await postgres.create_database(template=ledger_template)
    yield url
    await postgres.drop_database(url)


@pytest.fixture
async def own_pool(own_ledger_url: str) -> AsyncIterator[Pool]:
    async with open_pool(own_ledger_url, connections=5) as opened:
        yield opened


@pytest.fixture
async def emptied_ledger(worker_ledger: Ledger) -> AsyncIterator[Ledger]:
    yield worker_ledger
    await worker_ledger.empty()


@pytest.fixture
def ledger_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty ledger: the worker's, or one of its own for a test marked `own_ledger`."""
    # Asked for by name, so that only one of them is made.
    if _has_own_ledger(request):
        url: str = request.getfixturevalue("own_ledger_url")
        return url
    ledger: Ledger = request.getfixturevalue("emptied_ledger")
    return ledger.url


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> Pool:
    """Connections to the ledger of `ledger_url`."""
    if _has_own_ledger(request):
        opened: Pool = request.getfixturevalue("own_pool")
        return opened
    ledger: Ledger = request.getfixturevalue("emptied_ledger")
    return ledger.pool


def _has_own_ledger(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("own_ledger") is not None


def _digest_of_migrations() -> str:
    """Return what differs where a migration does: a run of mutants changes one at a time."""
    migrations = sorted((MIGRATIONS / "versions").glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in migrations)).hexdigest()
