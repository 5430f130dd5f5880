"""One orchestrator for all that is thrown at it, which must live through it."""

from collections.abc import Iterator

import pytest

from common.rest.identities import PrincipalKind, Role
from orchestrator.database.migrate import upgrade
from orchestrator.database.pool import open_pool
from orchestrator.identities.service import IdentityService
from tests.factories import OWN_TOKEN
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


@pytest.fixture(scope="session")
async def guarded_ledger_url(postgres: Postgres) -> str:
    """The URL of the ledger of an orchestrator that asks who comes."""
    url = await postgres.create_database()
    await upgrade(url)
    return url


@pytest.fixture(scope="session")
async def tokens(guarded_ledger_url: str) -> dict[str, str | None]:
    """The tokens of callers: one who may do everything, one who may only look, and none."""
    async with open_pool(guarded_ledger_url, connections=3) as pool:
        identities = IdentityService(pool)
        admin = (await identities.bootstrap("admin")).secret
        viewer = await identities.create(PrincipalKind.PERSON, "viewer", [Role.VIEWER], by="test")
        # Its own, so that no example claims it and is given another in its place.
        own = await identities.issue(viewer.principal_id, by=viewer.name, with_token=OWN_TOKEN)
        return {
            "admin": admin,
            "viewer": own.secret,
            "nobody": None,
        }


@pytest.fixture(scope="session")
def guarded_orchestrator(guarded_ledger_url: str) -> Iterator[Running]:
    with running_orchestrator(guarded_ledger_url, authentication="required") as running:
        yield running
