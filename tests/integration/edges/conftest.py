"""One orchestrator that serves on a real ledger, for all tests of its edges; what they store disturbs none of them."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from common.rest.identities import PrincipalKind, Role
from orchestrator.database.pool import open_pool
from orchestrator.identities.service import IdentityService
from tests.fuzz.running import Running, running_orchestrator
from tests.services.postgres import Postgres


@pytest.fixture(scope="session")
async def edges_ledger_url(postgres: Postgres, ledger_template: str) -> str:
    return await postgres.create_database(template=ledger_template)


@pytest.fixture(scope="session")
def orchestrator(edges_ledger_url: str) -> Iterator[Running]:
    with running_orchestrator(edges_ledger_url) as running:
        yield running


async def token_of(ledger_url: str, *roles: Role) -> str:
    """Return the token of a new person with these roles."""
    async with open_pool(ledger_url, connections=3) as pool:
        identities = IdentityService(pool)
        person = await identities.create(PrincipalKind.PERSON, f"p-{uuid4().hex[:12]}", roles, by="test")
        return (await identities.issue(person.principal_id, by="test")).secret
