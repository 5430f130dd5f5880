"""One orchestrator that serves on a real ledger, for all tests of its edges; what they store disturbs none of them."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from agents.settings import AgentSettings
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


@pytest.fixture(scope="module")
async def fleet_ledger_url(postgres: Postgres, ledger_template: str) -> str:
    return await postgres.create_database(template=ledger_template)


@pytest.fixture(scope="module")
def fleet(fleet_ledger_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An orchestrator with one agent, which is called web-1."""
    agent = AgentSettings(state_dir=tmp_path_factory.mktemp("agent") / "state", signatures="off", name="web-1")
    with running_orchestrator(fleet_ledger_url, agent=agent) as running:
        yield running
