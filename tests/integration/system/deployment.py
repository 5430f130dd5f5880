"""A whole Chiffon on real servers: an orchestrator that serves HTTP, and agents, all in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.main import run_agent
from agents.settings import AgentSettings
from chiffon.client import Client
from chiffon.models import DeadLetter, TaskStatus
from common.broker.base import Broker
from common.broker.connect import open_broker
from common.config import SharedSettings
from common.urls import http_url, place
from orchestrator.main import serve
from orchestrator.settings import OrchestratorSettings
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

    async def dead_letters(self, count: int) -> list[DeadLetter]:
        """Return the dead letters in the ledger, once there are so many."""
        found = (await self.client.dead_letters(limit=200)).items
        return found if len(found) == count else []

    async def finished(self, *task_ids: Any, timeout: float = 30) -> list[TaskStatus]:
        """Wait until tasks have ended and return them."""
        async with asyncio.timeout(timeout):
            return list(await asyncio.gather(*(self.client.wait(task_id) for task_id in task_ids)))


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
        **{"database_url": database_url, "port": port, "broker_identities": "trusted", **settings}
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(orchestrator(given, shared))
        client = await stack.enter_async_context(Client(http_url(given.host, port)))
        broker = await stack.enter_async_context(open_broker(broker_url, name="test"))
        yield System(shared, given, client, broker, folder, stack)
