"""Everything that runs: PostgreSQL, RabbitMQ, the proxies in front of them, two orchestrators and four agents."""

import asyncio
import os
import random
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import httpx2

from common.http_client import trust_for
from orchestrator.database.migrate import upgrade
from orchestrator.signing.first_key import ensure_key, public_keys
from tests.chaos.broker_node import USER, ChaosNode, start_broker_node
from tests.chaos.commit_proxy import CommitProxy
from tests.chaos.history import History
from tests.chaos.network import Network, NoNetwork, open_network
from tests.chaos.plan import AGENTS, HTTP_AGENT, NETWORK_AGENT, ORCHESTRATORS, PROXIED_ORCHESTRATOR, Settings
from tests.chaos.power_cut import recording
from tests.chaos.programs import Program
from tests.chaos.proxy import Link
from tests.chaos.removed import CHANGES, Safeguard
from tests.eventually import eventually
from tests.mutants.change import changed_copy
from tests.services.ports import free_ports
from tests.services.postgres import Postgres, start_embedded_postgres

# A dead connection is noticed by its heartbeats in a few seconds instead of half a minute.
AMQP_HEARTBEAT = 5


class Services(NamedTuple):
    """The servers that a world needs."""

    postgres: Postgres
    node: ChaosNode
    template: str
    """The URL of an empty ledger to copy: two migrations at once would get into each other's way."""


class Size(NamedTuple):
    """Who there is."""

    agents: tuple[str, ...] = AGENTS
    orchestrators: tuple[str, ...] = ORCHESTRATORS


EVERYBODY = Size()


@asynccontextmanager
async def open_services(*, hosts: int = 1) -> AsyncIterator[Services]:
    """Run servers of our own, whatever the environment names: they are going to suffer."""
    async with AsyncExitStack() as stack:

        async def start_postgres() -> tuple[Postgres, str]:
            postgres = await start_embedded_postgres(durable=True)
            stack.callback(postgres.stop)
            # Its data is not needed any more, and a shutdown in order writes all of it to disk.
            stack.push_async_callback(postgres.stop_immediately)
            template = await postgres.create_database()
            await upgrade(template)
            return postgres, template

        def start_node() -> ChaosNode:
            node = start_broker_node()
            stack.callback(node.stop)
            node.prepare(hosts=hosts)
            return node

        async with asyncio.TaskGroup() as group:
            starting = group.create_task(start_postgres())
            node = group.create_task(asyncio.to_thread(start_node))
        postgres, template = starting.result()
        yield Services(postgres, node.result(), template)


@dataclass
class World:
    """What faults hit and clients talk to."""

    settings: Settings
    folder: Path
    history: History
    node: ChaosNode
    postgres: Postgres
    database_url: str
    commits: CommitProxy
    links: Mapping[str, Link]
    network: Network | None
    orchestrators: Mapping[str, Program]
    agents: Mapping[str, Program]
    urls: Mapping[str, str]
    secrets: tuple[str, ...]
    host: str
    """The virtual host of the broker."""
    removed: Safeguard | None
    """The safeguard that the processes do without."""
    python_path: str
    """Where the processes find the product before they look where it is installed."""
    http: httpx2.AsyncClient

    def broker_url(self, host: str, port: int) -> str:
        return f"amqp://{USER}:{self.node.password}@{host}:{port}/{self.host}?heartbeat={AMQP_HEARTBEAT}"

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def disks(self) -> Path:
        """Where what agents bring to disk is noted."""
        return self.folder / "disk"

    @property
    def states(self) -> Path:
        return self.folder / "state"

    @property
    def keys(self) -> Path:
        """The signing keys, which all orchestrators share."""
        return self.folder / "keys"

    @property
    def trusted_keys(self) -> Path:
        return self.folder / "trusted_keys.pem"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    async def is_ready(self) -> bool:
        return not await self.missing()

    async def missing(self) -> str:
        """Return what keeps this from full service: an orchestrator that is not ready, an agent that is not there."""
        try:
            for name, url in self.urls.items():
                ready = await self.http.get(f"{url}/ready")
                if ready.status_code != 200:
                    return f"{name}: {ready.text}"
            listed = await self.http.get(f"{next(iter(self.urls.values()))}/api/v1/agents")
            if listed.status_code != 200:
                return f"agents: {listed.text}"
            agents = listed.json()
        except (httpx2.TransportError, ValueError) as failure:
            return repr(failure)
        present = {agent["hostname"] for agent in agents if agent["status"] in ("online", "busy")}
        return ", ".join(sorted(set(self.agents) - present))


@asynccontextmanager
async def open_world(
    settings: Settings,
    folder: Path,
    history: History,
    *,
    seed: int = 0,
    services: Services | None = None,
    size: Size = EVERYBODY,
    removed: Safeguard | None = None,
) -> AsyncIterator[World]:
    """Start everything and stop it at the end. `removed` names the safeguard that the processes do without.

    Services that are given are used, and left running.
    """
    planted = tuple(f"secret-{secrets.token_hex(12)}" for _ in range(3))
    (folder / "logs").mkdir(parents=True)
    folder.chmod(0o755)
    async with AsyncExitStack() as stack:
        if services is None:
            services = await stack.enter_async_context(open_services())
        postgres, node, template = services
        database_url = _with_password(await postgres.create_database(template=template), planted[0])
        commits = await stack.enter_async_context(
            CommitProxy(database_url, folder / "pg", random.Random(seed), share=0.3)
        )
        network = await _network(stack, history) if NETWORK_AGENT in size.agents else None
        ports = dict(zip(size.orchestrators, free_ports(len(size.orchestrators)), strict=True))
        links = {}
        for name in size.agents:
            to_server = ("127.0.0.1", ports[size.orchestrators[0]])
            links[name] = link = Link(*(to_server if name == HTTP_AGENT else node.address))
            await link.open(network.outside if network and name == NETWORK_AGENT else "127.0.0.1")
            await stack.enter_async_context(link)
        world = World(
            settings,
            folder,
            history,
            node,
            postgres,
            database_url,
            commits,
            links,
            network,
            orchestrators={},
            agents={},
            urls={name: f"http://127.0.0.1:{port}" for name, port in ports.items()},
            secrets=(*planted, node.password),
            host=node.unused_host(),
            removed=removed,
            python_path=os.environ.get("PYTHONPATH", "")
            if removed is None
            else changed_copy(folder / "product", CHANGES[removed]),
            http=await stack.enter_async_context(
                httpx2.AsyncClient(timeout=5, trust_env=False, verify=trust_for("http:"))
            ),
        )
        ensure_key(world.keys)
        world.trusted_keys.write_bytes(public_keys(world.keys))
        world.orchestrators = {name: _orchestrator(world, name, port) for name, port in ports.items()}
        world.agents = {name: _agent(world, name) for name in size.agents}
        stack.push_async_callback(_stop_all, world)
        for program in (*world.orchestrators.values(), *world.agents.values()):
            program.start()
        await eventually(world.is_ready, timeout=60, every=0.2)
        yield world


async def _network(stack: AsyncExitStack, history: History) -> Network | None:
    try:
        return await stack.enter_async_context(open_network())
    except NoNetwork as reason:
        history.notes.append(f"no faults of the kinds network.*: {reason}")
        return None


async def _stop_all(world: World) -> None:
    await asyncio.gather(*(agent.stop() for agent in world.agents.values()))
    await asyncio.gather(*(orchestrator.stop() for orchestrator in world.orchestrators.values()))


def _orchestrator(world: World, name: str, port: int) -> Program:
    settings = world.settings
    database = world.commits.url if name == PROXIED_ORCHESTRATOR else world.database_url
    environment = {
        **_environment(world),
        "CHIFFON_BROKER_URL": world.broker_url(*world.node.address),
        "CHIFFON_BROKER_IDENTITIES": "trusted",
        "CHIFFON_AUTHENTICATION": "off",
        "CHIFFON_DATABASE_URL": database,
        "CHIFFON_PORT": str(port),
        "CHIFFON_SIGNING_KEYS_DIR": str(world.keys),
        "CHIFFON_LEASE_SECONDS": str(settings.lease_seconds),
        "CHIFFON_AGENT_OFFLINE_AFTER_SECONDS": str(settings.offline_after_seconds),
    }
    return Program(name, [sys.executable, "-m", "chiffon", "server"], environment, world.logs, world.history)


def _agent(world: World, name: str) -> Program:
    settings, link = world.settings, world.links[name]
    inside = world.network if name == NETWORK_AGENT else None
    if name == HTTP_AGENT:
        way = {
            "CHIFFON_AGENT_SERVER_URL": f"http://127.0.0.1:{link.port}",
            "CHIFFON_AGENT_LEASE_SECONDS": f"{settings.lease_seconds:.0f}",
        }
    else:
        way = {"CHIFFON_BROKER_URL": world.broker_url(inside.outside if inside else "127.0.0.1", link.port)}
    environment = {
        **_environment(world),
        **way,
        "CHIFFON_AGENT_NAME": name,
        "CHIFFON_AGENT_STATE_DIR": str(world.states / name),
        "CHIFFON_AGENT_TRUSTED_KEYS": str(world.trusted_keys),
        "CHIFFON_AGENT_SLOTS": str(settings.slots),
        "CHIFFON_AGENT_HEARTBEAT_SECONDS": str(settings.heartbeat_seconds),
        "CHIFFON_AGENT_KILL_GRACE_SECONDS": str(settings.kill_grace_seconds),
        "CHIFFON_AGENT_STOP_GRACE_SECONDS": "2",
        "CHIFFON_AGENT_RESULT_RESEND_SECONDS": "3",
        "CHIFFON_AGENT_ENV_ALLOW": "PATH,HOME,CHAOS_AGENT",
        "CHAOS_AGENT": name,
        **recording(world.disks / name, world.python_path),
    }
    command = [sys.executable, "-m", "chiffon", "agent"]
    return Program(name, inside.command(*command) if inside else command, environment, world.logs, world.history)


def _environment(world: World) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHIFFON_")}
    return {**kept, "CHAOS_SECRET": world.secrets[1], "PYTHONPATH": world.python_path}


def _with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"postgres:{password}@"))
