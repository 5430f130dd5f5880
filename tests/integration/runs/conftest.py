"""Orchestrators that run plans, and agents that do the work: all in this process, with a broker in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from agents.main import run_agent
from agents.settings import AgentSettings
from chiffon.client import Client
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from common.rest.identities import PrincipalKind, Role
from common.rest.runs import Run
from orchestrator.database.pool import Pool, open_pool
from orchestrator.identities.service import IdentityService
from orchestrator.main import serve
from orchestrator.settings import OrchestratorSettings
from tests.eventually import eventually
from tests.factories import OWN_TOKEN
from tests.services.ports import free_ports
from tests.services.postgres import Postgres

SHARED = SharedSettings(broker_url="memory://")


@dataclass
class Site:
    """Orchestrators on one ledger and one broker, and their agents. `client` speaks to the first."""

    pool: Pool
    ledger_url: str
    folder: Path
    stack: AsyncExitStack
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    url: str = ""
    _agents: int = 0

    @property
    def client(self) -> Client:
        """A client without a token."""
        return Client(self.url)

    @asynccontextmanager
    async def orchestrator(self, **settings: Any) -> AsyncIterator[str]:
        """Run an orchestrator and give its URL."""
        given = OrchestratorSettings(
            **{
                "database_url": self.ledger_url,
                "port": free_ports(1)[0],
                "artifacts_dir": self.folder / "artifacts",
                **settings,
            }
        )
        started, stop = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(serve(given, SHARED, broker=self.broker, started=started, stop=stop))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not started.is_set():
            await running
        try:
            yield f"http://127.0.0.1:{given.port}"
        finally:
            stop.set()
            await running

    async def open(self, **settings: Any) -> None:
        """Run an orchestrator until the end of the test; `url` is its URL."""
        self.url = await self.stack.enter_async_context(self.orchestrator(**settings))

    async def start_agent(self, **settings: Any) -> None:
        """Run an agent until the end of the test; return when it takes work."""
        self._agents += 1
        given = AgentSettings(
            **{"state_dir": self.folder / f"agent-{self._agents}", "heartbeat_seconds": 0.5, "slots": 8, **settings}
        )
        await self.stack.enter_async_context(self._agent(given))

    @asynccontextmanager
    async def _agent(self, settings: AgentSettings) -> AsyncIterator[None]:
        started, stop = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(run_agent(settings, SHARED, broker=self.broker, stop=stop, started=started))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            yield
        finally:
            stop.set()
            await running

    async def somebody(self, *roles: Role) -> Client:
        """Return a client that is a person of these roles."""
        identities = IdentityService(self.pool)
        person = await identities.create(PrincipalKind.PERSON, f"p-{uuid4().hex[:12]}", roles, by="test")
        issued = await identities.issue(person.principal_id, by=person.name, with_token=OWN_TOKEN)
        return await self.stack.enter_async_context(Client(self.url, token=issued.secret))


@pytest.fixture
async def bare(ledger_url: str, pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    """A ledger and a broker, without an orchestrator."""
    async with AsyncExitStack() as stack:
        yield Site(pool, ledger_url, tmp_path, stack)


@pytest.fixture(scope="module")
async def site(
    postgres: Postgres, ledger_template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """An orchestrator that asks nobody for a token, and an agent, for all tests of a module (`xdist_group`)."""
    url = await postgres.create_database(template=ledger_template)
    async with open_pool(url, connections=2) as pool, AsyncExitStack() as stack:
        opened = Site(pool, url, tmp_path_factory.mktemp("site"), stack)
        await opened.open()
        await opened.start_agent()
        yield opened
    await postgres.drop_database(url)


@pytest.fixture(scope="module")
async def client(site: Site) -> AsyncIterator[Client]:
    async with site.client as client:
        yield client


def echo(name: str, message: str = "", **more: Any) -> dict[str, Any]:
    """Return a step that says something."""
    return {"name": name, "work_type": "echo", "parameters": {"message": message or name}, **more}


def script(name: str, text: str, **more: Any) -> dict[str, Any]:
    """Return a step that runs a shell script."""
    return {"name": name, "work_type": "shell_script", "parameters": {"script": text}, **more}


def undo(text: str) -> dict[str, Any]:
    """Return what undoes a step: a shell script."""
    return {"work_type": "shell_script", "parameters": {"script": text}}


def plan(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"steps": list(steps), **more}


async def ended(client: Client, run_id: UUID) -> Run:
    """Return a run once it has ended."""
    async with asyncio.timeout(60):
        return await client.wait_for_run(run_id)


async def standing(client: Client, run_id: UUID, status: str) -> Run:
    """Return a run once it stands there."""

    async def stands() -> Run | None:
        found = await client.run(run_id)
        return found if found.status == status else None

    found = await eventually(stands, timeout=30)
    assert found is not None
    return found


def statuses(run: Run) -> dict[str, str]:
    """Return how the steps of a run stand; what undoes one is named after it."""
    return {step.step if step.kind == "step" else f"undo {step.step}": str(step.status) for step in run.steps}
