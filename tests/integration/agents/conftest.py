"""An agent and a scripted orchestrator on one broker in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agents.main import run_agent
from agents.settings import AgentSettings
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from tests.eventually import eventually
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator


@dataclass
class RunningAgent:
    stop: asyncio.Event
    ended: asyncio.Task[None]


StartAgent = Callable[..., Awaitable[RunningAgent]]


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
async def orchestrator(broker: MemoryBroker) -> AsyncIterator[ScriptedOrchestrator]:
    async with ScriptedOrchestrator(broker).listening() as scripted:
        yield scripted


@asynccontextmanager
async def _running(broker: MemoryBroker, settings: AgentSettings) -> AsyncIterator[RunningAgent]:
    stop = asyncio.Event()
    shared = SharedSettings(broker_url="memory://")
    ended = asyncio.create_task(run_agent(settings, shared, broker=broker, stop=stop))
    try:
        yield RunningAgent(stop, ended)
    finally:
        stop.set()
        await ended


@pytest.fixture
async def start_agent(
    broker: MemoryBroker, orchestrator: ScriptedOrchestrator, tmp_path: Path
) -> AsyncIterator[StartAgent]:
    """Start an agent that has registered; it is stopped at the end of the test."""
    async with AsyncExitStack() as stack:

        async def start(**changes: object) -> RunningAgent:
            values = {
                "state_dir": tmp_path / "agent",
                "slots": 2,
                "heartbeat_seconds": 0.2,
                "stop_grace_seconds": 0,
                "kill_grace_seconds": 1,
            }
            settings = AgentSettings.load(**{**values, **changes})
            agent = await stack.enter_async_context(_running(broker, settings))
            await eventually(lambda: orchestrator.heartbeats or agent.ended.done())
            return agent

        yield start
