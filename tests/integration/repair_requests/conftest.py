"""An orchestrator that knows services and asks who comes, on a real ledger, and an agent whose repairs are scripted."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from agents.executors import registry
from agents.executors.compose import ComposeExecutor
from agents.main import run_agent
from agents.settings import AgentSettings
from chiffon.http import bearer
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from common.http_client import client_options
from common.rest.identities import PrincipalKind, Role
from orchestrator.database.pool import Pool, open_pool
from orchestrator.identities.service import IdentityService
from orchestrator.main import serve
from orchestrator.settings import OrchestratorSettings
from tests.eventually import eventually
from tests.factories import OWN_TOKEN
from tests.integration.repair_requests.scripted import Host, ScriptedRepair
from tests.services.ports import free_ports
from tests.services.postgres import Postgres

Json = dict[str, Any]

RUNS = "/orchestrator/runs"
SHARED = SharedSettings(broker_url="memory://")
DIFF = "--- a/web/app.py\n+++ b/web/app.py\n@@ -1 +1 @@\n-print(1)\n+print(2)\n"
SERVICE = """
project = "shop"
workspace = "/srv/shop"
allowlist = ["web/**"]
commands_allowed = [["sed"]]
commands = [["sed", "-i", "s/1/2/", "web/app.py"]]
labels = { host = "shop-1" }
"""
SERVICES = f"""
[service.web]
{SERVICE}
healthcheck = {{ url = "http://127.0.0.1:8080/" }}
[service.db]
{SERVICE}
[service.guarded]
{SERVICE}
approval = {{ requirement = "pre-run", valid_minutes = 60 }}
[service.guarded-by-two]
{SERVICE}
approval = {{ requirement = "pre-run", approvers = 2, roles = ["approver", "admin"] }}
[service.shown-first]
{SERVICE}
approval = {{ requirement = "pre-verify" }}
[service.bare]
project = "shop"
workspace = "/srv/shop"
allowlist = ["web/**"]
"""
OPEN = "SELECT coalesce(array_agg(run_id::text), '{}') FROM run WHERE finished_at IS NULL"
FINAL = ("succeeded", "failed", "rolled_back")


@dataclass
class Somebody:
    """A person or a service with a token, and a client that sends it."""

    name: str
    token: str
    http: httpx2.AsyncClient


@dataclass
class Shop:
    """What the tests need of the orchestrator, its agent, and the people."""

    url: str
    pool: Pool
    host: Host
    artifacts: Path
    stack: AsyncExitStack
    broker: MemoryBroker
    folder: Path
    people: dict[str, Somebody] = field(default_factory=dict)

    async def somebody(self, *roles: Role, kind: PrincipalKind = PrincipalKind.PERSON) -> Somebody:
        """Return somebody new of these roles."""
        identities = IdentityService(self.pool)
        made = await identities.create(kind, f"p-{uuid4().hex[:12]}", roles, by="test")
        token = (await identities.issue(made.principal_id, by=made.name, with_token=OWN_TOKEN)).secret
        client = httpx2.AsyncClient(headers=bearer(token), timeout=30, **client_options(self.url))
        return Somebody(made.name, token, await self.stack.enter_async_context(client))

    async def operator(self) -> Somebody:
        """Return the one who asks for repairs."""
        if "operator" not in self.people:
            self.people["operator"] = await self.somebody(Role.OPERATOR, Role.APPROVER)
        return self.people["operator"]

    async def approver(self) -> Somebody:
        """Return another one, who approves."""
        if "approver" not in self.people:
            self.people["approver"] = await self.somebody(Role.APPROVER)
        return self.people["approver"]

    async def create(self, service: str = "web", **body: Any) -> Json:
        """Ask for a repair and return the answer."""
        given = {"instruction": "Repair it.", "target_service": service, **body}
        return await self.post(RUNS, given, status=202)

    async def post(self, path: str, body: Any, *, status: int, by: Somebody | None = None) -> Json:
        """Send a body, as the operator by default, and return the answer, whose status is this."""
        somebody = by or await self.operator()
        answer = await somebody.http.post(path, json=body)
        assert answer.status_code == status, answer.text
        found: Json = answer.json()
        return found

    async def get(self, path: str, *, status: int = 200) -> Json:
        answer = await (await self.operator()).http.get(path)
        assert answer.status_code == status, answer.text
        found: Json = answer.json()
        return found

    async def stands(self, run_id: str, *statuses: str) -> Json:
        """Return a repair once it stands at one of these."""

        async def there() -> Json:
            found = await self.get(f"{RUNS}/{run_id}")
            assert found["status"] in statuses, found
            return found

        return await eventually(there, timeout=30)

    async def ended(self, run_id: str, *, timeout: float = 30, every: float = 0.02) -> Json:
        """Return a repair once it has ended, with all that it left."""

        async def there() -> Json:
            found = await self.get(f"{RUNS}/{run_id}")
            assert found["status"] in FINAL, found
            assert all(one["signed_path"] for one in found["artifacts"])
            return found

        return await eventually(there, timeout=timeout, every=every)

    async def is_at(self, run_id: str, step: str) -> Json:
        """Return a repair once this step is under way."""

        async def there() -> Json:
            found = await self.get(f"{RUNS}/{run_id}")
            assert (found["status"], statuses(found)[step]) == ("running", "in_progress"), found
            return found

        return await eventually(there, timeout=30)

    async def approve(self, run: Json, *, by: Somebody | None = None, status: int = 200, **body: Any) -> Json:
        """Approve what a repair waits for, as the approver by default."""
        somebody = by or await self.approver()
        given = {
            "approver": {"id": somebody.name, "role": "approver"},
            "token": run["approval_id"],
            **body,
        }
        return await self.post(f"{RUNS}/{run['run_id']}/approvals", given, status=status, by=somebody)

    async def retry(self, run: Json, *, status: int = 202, **body: Any) -> Json:
        return await self.post(f"{RUNS}/{run['run_id']}/retry", body, status=status)

    async def clear(self) -> None:
        """End the runs that have not ended, and forget all runs."""
        for run_id in await self.pool.fetchval(OPEN):
            await self.post(f"/api/v1/runs/{run_id}/cancel", {}, status=200)

        async def is_over() -> bool:
            return not await self.pool.fetchval(OPEN)

        await eventually(is_over, timeout=30)
        await self.pool.execute("TRUNCATE run CASCADE")

    async def start_agent(self, **more: Any) -> None:
        """Start an agent, which runs for as long as the orchestrator."""
        settings = AgentSettings(
            state_dir=self.folder / "agent", labels={"host": "shop-1"}, heartbeat_seconds=0.5, type="infra", **more
        )
        await self.stack.enter_async_context(_agent(settings, self.broker))


def statuses(run: Json) -> dict[str, str]:
    """Return how the steps of a repair stand, by their names."""
    return {step["name"]: step["status"] for step in run["steps"]}


@asynccontextmanager
async def _agent(settings: AgentSettings, broker: MemoryBroker) -> AsyncIterator[None]:
    stop = asyncio.Event()
    running = asyncio.create_task(run_agent(settings, SHARED, broker=broker, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await running


@asynccontextmanager
async def serving(settings: OrchestratorSettings, broker: MemoryBroker) -> AsyncIterator[str]:
    """Run an orchestrator, and give its URL."""
    started, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(serve(settings, SHARED, broker=broker, started=started, stop=stop))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not started.is_set():
        await running
    try:
        yield f"http://127.0.0.1:{settings.port}"
    finally:
        stop.set()
        await running


def settings_of(ledger_url: str, folder: Path, **more: Any) -> OrchestratorSettings:
    """Return the settings of an orchestrator that knows `SERVICES`."""
    services = folder / "services.toml"
    services.write_text(SERVICES)
    given: dict[str, Any] = {
        "database_url": ledger_url,
        "port": free_ports(1)[0],
        "authentication": "required",
        "services_file": services,
        "artifacts_dir": folder / "artifacts",
        "statsd_host": "",
    }
    return OrchestratorSettings(**{**given, **more})


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The scripted host, which agents of these tests offer in place of real repairs."""
    made = Host(tmp_path_factory.mktemp("left"))
    others = tuple(one for one in registry.BUILT_IN if one is not ComposeExecutor)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ScriptedRepair, "host", made, raising=False)
        patched.setattr(registry, "BUILT_IN", (*others, ScriptedRepair))
        yield made


@pytest.fixture
def host(scripted: Host) -> Iterator[Host]:
    """The scripted host, on which all goes well unless a test says otherwise."""
    scripted.tasks.clear()
    yield scripted
    scripted.begin_anew()


@asynccontextmanager
async def open_shop(
    settings: OrchestratorSettings, pool: Pool, host: Host, folder: Path, *, with_agent: bool = True
) -> AsyncIterator[Shop]:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(settings, broker))
        shop = Shop(url, pool, host, settings.artifacts_dir, stack, broker, folder)
        if with_agent:
            await shop.start_agent()
        yield shop


@dataclass
class OwnLedger:
    """A ledger that the tests of a module share."""

    url: str
    pool: Pool


@asynccontextmanager
async def own_ledger(postgres: Postgres, template: str) -> AsyncIterator[OwnLedger]:
    url = await postgres.create_database(template=template)
    async with open_pool(url, connections=2) as pool:
        yield OwnLedger(url, pool)
    await postgres.drop_database(url)


@pytest.fixture(scope="module")
async def module_shop(
    postgres: Postgres, ledger_template: str, scripted: Host, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shop]:
    """An orchestrator and an agent, for all tests of a module (`xdist_group`)."""
    folder = tmp_path_factory.mktemp("shop")
    async with (
        own_ledger(postgres, ledger_template) as ledger,
        open_shop(settings_of(ledger.url, folder), ledger.pool, scripted, folder) as opened,
    ):
        yield opened


@pytest.fixture(scope="module")
async def module_office(
    postgres: Postgres, ledger_template: str, scripted: Host, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shop]:
    """An orchestrator without any agent, for all tests of a module (`xdist_group`)."""
    folder = tmp_path_factory.mktemp("office")
    async with (
        own_ledger(postgres, ledger_template) as ledger,
        open_shop(settings_of(ledger.url, folder), ledger.pool, scripted, folder, with_agent=False) as opened,
    ):
        yield opened


@pytest.fixture
async def shop(module_shop: Shop, host: Host) -> AsyncIterator[Shop]:
    """An orchestrator without any run, and an agent."""
    yield module_shop
    host.begin_anew()
    await module_shop.clear()


@pytest.fixture
async def office(module_office: Shop, host: Host) -> AsyncIterator[Shop]:
    """An orchestrator without any run and any agent."""
    yield module_office
    await module_office.clear()
