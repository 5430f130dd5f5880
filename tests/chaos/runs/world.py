"""A host with a compose project on a docker of its own, its agent, an orchestrator, RabbitMQ and PostgreSQL."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from chiffon.http import bearer
from common.http_client import client_options
from common.rest.identities import PrincipalKind, Role
from orchestrator.database.pool import open_pool
from orchestrator.identities.service import IdentityService
from orchestrator.signing.first_key import ensure_key, public_keys
from tests.chaos.broker_node import USER, ChaosNode
from tests.chaos.history import History
from tests.chaos.programs import Program
from tests.chaos.runs import look
from tests.chaos.runs.holds import Holds
from tests.chaos.runs.plan import Victim
from tests.chaos.world import AMQP_HEARTBEAT, Services
from tests.eventually import eventually
from tests.factories import OWN_TOKEN
from tests.integration.repairs.shop import Shop
from tests.services.docker import DockerDaemon
from tests.services.ports import steady_port

# Shorter than some outages, so that repairs lose their leases at times.
LEASE_SECONDS = 10
READY_SECONDS = 60
# The service, and the same one with people who must agree to the diff.
PLAIN, SHOWN = "web", "web-shown"
SERVICES = """
[service.{name}]
service = "web"
project = "{shop.project}"
workspace = "{shop.workspace}"
allowlist = ["www/**", "build.sh"]
commands_allowed = [["sh", "-c"]]
healthcheck = {{ url = "http://127.0.0.1:{shop.port}/health", timeout_seconds = 10, interval_seconds = 0.5 }}
"""
GATE = 'approval = { requirement = "pre-verify" }\n'


@dataclass
class World:
    """What runs, and what can be killed of it. `http` is who asks for repairs, `approver` who agrees to them."""

    folder: Path
    shop: Shop
    holds: Holds
    history: History
    node: ChaosNode
    database_url: str
    orchestrator: Program
    agent: Program
    http: httpx2.AsyncClient
    approver: httpx2.AsyncClient

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def state(self) -> Path:
        """The state file of the service."""
        return self.shop.store.folder / f"{self.shop.key}.json"

    async def kill(self, victim: Victim) -> None:
        match victim:
            case Victim.AGENT:
                await self.agent.kill()
            case Victim.ORCHESTRATOR:
                await self.orchestrator.kill()
            case Victim.DOCKERD:
                await asyncio.to_thread(self.shop.daemon.kill)
            case Victim.BROKER:
                await asyncio.to_thread(self.node.kill)

    async def start(self, victim: Victim) -> None:
        """Start again what was killed."""
        match victim:
            case Victim.AGENT:
                self.agent.start()
            case Victim.ORCHESTRATOR:
                self.orchestrator.start()
            case Victim.DOCKERD:
                await asyncio.to_thread(self.shop.daemon.start)
            case Victim.BROKER:
                await asyncio.to_thread(self.node.start_again)

    async def is_ready(self) -> bool:
        """Return whether the orchestrator does its whole work and the agent is there."""
        try:
            ready = await self.http.get("/ready")
            agents = await self.http.get("/api/v1/agents")
        except httpx2.TransportError:
            return False
        if (ready.status_code, agents.status_code) != (200, 200):
            return False
        return any(one["status"] in ("online", "busy") for one in agents.json())


@asynccontextmanager
async def open_world(
    folder: Path, services: Services, daemon: DockerDaemon, *, lease_seconds: int = LEASE_SECONDS
) -> AsyncIterator[World]:
    """Start everything on these servers and this docker, and stop it at the end."""
    (folder / "logs").mkdir(parents=True)
    folder.chmod(0o755)
    history, node = History(), services.node
    async with AsyncExitStack() as stack:
        database_url = await services.postgres.create_database(template=services.template)
        shop = await asyncio.to_thread(Shop.made, folder, daemon)
        stack.push_async_callback(asyncio.to_thread, daemon.remove_all)
        await asyncio.to_thread(shop.up)
        port = steady_port()
        broker = f"amqp://{USER}:{node.password}@{':'.join(map(str, node.address))}/{node.unused_host()}"
        common = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CHIFFON_")},
            "CHIFFON_BROKER_URL": f"{broker}?heartbeat={AMQP_HEARTBEAT}",
        }
        holds = Holds(folder / "holds", shop.store.folder / f"{shop.key}.json")
        orchestrator = Program(
            "orchestrator",
            [sys.executable, "-m", "chiffon", "server"],
            {**common, **_orchestrator(folder, database_url, port, lease_seconds), **_services(folder, shop)},
            folder / "logs",
            history,
        )
        agent = Program(
            "agent",
            [sys.executable, "-m", "chiffon", "agent"],
            {**common, **shop.environment, **_agent(folder, shop, holds)},
            folder / "logs",
            history,
        )
        http, approver = [
            await stack.enter_async_context(client)
            for client in await _people(database_url, f"http://127.0.0.1:{port}")
        ]
        world = World(folder, shop, holds, history, node, database_url, orchestrator, agent, http, approver)
        for program in (orchestrator, agent):
            stack.push_async_callback(program.stop)
            program.start()
        await eventually(world.is_ready, timeout=READY_SECONDS, every=0.1)
        await eventually(lambda: asyncio.to_thread(look.answer_of, shop), timeout=READY_SECONDS)
        yield world


async def _people(database_url: str, url: str) -> list[httpx2.AsyncClient]:
    clients = []
    async with open_pool(database_url, connections=2) as pool:
        identities = IdentityService(pool)
        for name, roles in (("operator", [Role.OPERATOR]), ("approver", [Role.APPROVER])):
            made = await identities.create(PrincipalKind.PERSON, name, roles, by="chaos")
            token = (await identities.issue(made.principal_id, by=name, with_token=OWN_TOKEN)).secret
            clients.append(httpx2.AsyncClient(headers=bearer(token), timeout=5, **client_options(url)))
    return clients


def _orchestrator(folder: Path, database_url: str, port: int, lease_seconds: int) -> dict[str, str]:
    keys = folder / "keys"
    ensure_key(keys)
    (folder / "trusted_keys.pem").write_bytes(public_keys(keys))
    return {
        "CHIFFON_BROKER_IDENTITIES": "trusted",
        "CHIFFON_AUTHENTICATION": "required",
        "CHIFFON_DATABASE_URL": database_url,
        "CHIFFON_PORT": str(port),
        "CHIFFON_SIGNING_KEYS_DIR": str(keys),
        "CHIFFON_LEASE_SECONDS": str(lease_seconds),
        "CHIFFON_AGENT_OFFLINE_AFTER_SECONDS": "4",
        "CHIFFON_ARTIFACTS_DIR": str(folder / "artifacts"),
    }


def _services(folder: Path, shop: Shop) -> dict[str, str]:
    path = folder / "services.toml"
    path.write_text(SERVICES.format(name=PLAIN, shop=shop) + SERVICES.format(name=SHOWN, shop=shop) + GATE)
    path.chmod(0o600)
    return {"CHIFFON_SERVICES_FILE": str(path)}


def _agent(folder: Path, shop: Shop, holds: Holds) -> dict[str, Any]:
    return {
        "PATH": f"{holds.programs}:{os.environ['PATH']}",
        "CHIFFON_AGENT_NAME": "host",
        "CHIFFON_AGENT_TYPE": "infra",
        "CHIFFON_AGENT_STATE_DIR": str(shop.folder / "state"),
        "CHIFFON_AGENT_TRUSTED_KEYS": str(folder / "trusted_keys.pem"),
        "CHIFFON_AGENT_COMPOSE_ROOT": str(shop.root),
        "CHIFFON_AGENT_HEARTBEAT_SECONDS": "1",
        "CHIFFON_AGENT_KILL_GRACE_SECONDS": "1",
        "CHIFFON_AGENT_STOP_GRACE_SECONDS": "2",
        "CHIFFON_AGENT_RESULT_RESEND_SECONDS": "3",
        "CHIFFON_AGENT_ENV_ALLOW": "PATH,HOME,DB_PASSWORD",
    }
