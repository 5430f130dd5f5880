"""A whole Chiffon on real servers: an orchestrator that serves HTTP, and agents, all in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from agents.main import run_agent
from agents.settings import AgentSettings
from chiffon.client import Client
from chiffon.models import Agent, DeadLetter, TaskStatus
from common.broker.base import Broker
from common.broker.connect import open_broker
from common.config import SharedSettings
from common.messages import AgentStatus
from common.urls import http_url, place
from orchestrator.main import serve
from orchestrator.settings import OrchestratorSettings
from tests.eventually import eventually
from tests.services.ports import free_ports


@dataclass
class System:
    """What a test needs of it."""

    shared: SharedSettings
    settings: OrchestratorSettings
    client: Client
    broker: Broker
    folder: Path
    stack: AsyncExitStack
    _agents: int = field(default=0)
    _older_letters: frozenset[int] = frozenset()

    @property
    def websocket(self) -> str:
        return f"ws://{place(self.settings.host, self.settings.port)}"

    async def start_agent(self, *, shared: SharedSettings | None = None, **settings: Any) -> asyncio.Event:
        """Start an agent that runs until the end of the test; returns the event that stops it."""
        self._agents += 1
        return await self.stack.enter_async_context(
            _agent(
                AgentSettings(
                    **{"state_dir": self.folder / f"agent-{self._agents}", "heartbeat_seconds": 0.5, **settings}
                ),
                shared or self.shared,
            )
        )

    @asynccontextmanager
    async def for_one_test(self, folder: Path) -> AsyncIterator["System"]:
        """Lend the orchestrator to one test, and leave neither agents nor unfinished work behind."""
        older = frozenset(letter.id for letter in await self._letters())
        async with AsyncExitStack() as stack:
            yield replace(self, folder=folder, stack=stack, _agents=0, _older_letters=older)
        await self._settle()

    async def agents_online(self) -> list[Agent]:
        """Return the agents that run; those of earlier tests are known, but offline."""
        return [agent for agent in await self.client.agents() if agent.status is not AgentStatus.OFFLINE]

    async def agents_ready(self) -> list[Agent]:
        """Return the agents that take work now."""
        ready = await takers(self.client)
        return [agent for agent in await self.agents_online() if agent.agent_id in ready]

    async def dead_letters(self, count: int) -> list[DeadLetter]:
        """Return the dead letters of this test, once there are so many."""
        found = [letter for letter in await self._letters() if letter.id not in self._older_letters]
        return found if len(found) == count else []

    async def finished(self, *task_ids: Any, timeout: float = 30) -> list[TaskStatus]:
        """Wait until tasks have ended and return them."""
        async with asyncio.timeout(timeout):
            return await ended(self.client, *task_ids)

    async def _letters(self) -> list[DeadLetter]:
        return (await self.client.dead_letters(limit=200)).items

    async def _settle(self) -> None:
        async def is_quiet() -> bool:
            left = [task for status in ("pending", "running") for task in await self._tasks(status)]
            await asyncio.gather(*(self.client.cancel(task_id) for task_id in left))
            return not left and not await self.agents_online()

        # Longer than an agent whose goodbye was lost counts as online.
        await eventually(is_quiet, timeout=60)

    async def _tasks(self, status: str) -> list[UUID]:
        return [task.task_id for task in (await self.client.tasks(status=status, limit=200)).items]


async def takers(client: Client) -> set[UUID]:
    """Return the agents that take work now; one that has just registered does not ask for any yet."""
    return {agent.agent_id for agent in (await client.capacity()).agents if agent.free_slots > 0}


async def ended(client: Client, *task_ids: Any) -> list[TaskStatus]:
    """Return tasks once all have ended; a feed is opened only for those that still run when it is their turn."""
    tasks = []
    for task_id in task_ids:
        task = await client.status(task_id)
        tasks.append(task if task.is_final else await client.wait(task_id))
    return tasks


@asynccontextmanager
async def agent_here(url: str, state_dir: Path, **settings: Any) -> AsyncIterator[asyncio.Event]:
    """Run an agent in this process, on the bus or over the queue API of the server that `url` names.

    Returns the event that stops it; one that has to be killed, or whose log is read, is an `agent_process`.
    """
    over_http = url.startswith("http")
    given = {"signatures": "off", "heartbeat_seconds": 0.5, "stop_grace_seconds": 0, **settings}
    if over_http:
        given["server_url"] = url
    shared = SharedSettings() if over_http else SharedSettings(broker_url=url)
    async with _agent(AgentSettings(state_dir=state_dir, **given), shared) as stop:
        yield stop


@asynccontextmanager
async def _agent(settings: AgentSettings, shared: SharedSettings) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    running = asyncio.create_task(run_agent(settings, shared, stop=stop))
    try:
        yield stop
    finally:
        stop.set()
        await running


@asynccontextmanager
async def orchestrator(
    settings: OrchestratorSettings, shared: SharedSettings, *, broker: Broker | None = None
) -> AsyncIterator[None]:
    """Serve an orchestrator as long as the block runs."""
    started, stop = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(serve(settings, shared, broker=broker, started=started, stop=stop))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        if not started.is_set():
            await serving
        yield
    finally:
        stop.set()
        await serving


@asynccontextmanager
async def open_system(broker_url: str, database_url: str, folder: Path, **settings: Any) -> AsyncIterator[System]:
    """Run an orchestrator on real servers, without agents."""
    [port] = free_ports(1)
    shared = SharedSettings(broker_url=broker_url)
    given = OrchestratorSettings(
        **{
            "database_url": database_url,
            "port": port,
            "broker_identities": "trusted",
            "artifacts_dir": folder / "artifacts",
            **settings,
        }
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(orchestrator(given, shared))
        client = await stack.enter_async_context(Client(http_url(given.host, given.port)))
        broker = await stack.enter_async_context(open_broker(broker_url, name="test"))
        yield System(shared, given, client, broker, folder, stack)
