"""An agent that is connected and hears nothing says so and opens new ears."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agents.contact.ears import AgentDeaf
from agents.main import run_agent
from agents.settings import AgentSettings
from common.broker.base import Consumer, Delivery
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from common.messages import ResultStatus
from tests.eventually import eventually
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator


class GoneDeaf:
    """A consumer that goes on, as far as anybody can see, and delivers nothing once it is deaf."""

    def __init__(self, consumer: Consumer, deafened: asyncio.Event) -> None:
        self._consumer = consumer
        self._deafened = deafened
        self.ack = consumer.ack
        self.requeue = consumer.requeue
        self.dead_letter = consumer.dead_letter
        self.cancel = consumer.cancel

    async def receive(self, limit: int = 1) -> Sequence[Delivery]:
        if not self._deafened.is_set():
            deliveries = await self._consumer.receive(limit)
            if not self._deafened.is_set():
                return deliveries
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody answers this future")


class Deafening(MemoryBroker):
    """Its consumers can be made deaf; those that are opened afterwards hear."""

    def __init__(self) -> None:
        super().__init__()
        self._deafened = asyncio.Event()
        self.reconnects = 0

    def deafen(self) -> None:
        self._deafened.set()
        self._deafened = asyncio.Event()

    async def reconnect(self) -> None:
        self.reconnects += 1

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumer]:
        async with super().consume(queue, prefetch=prefetch) as consumer:
            yield consumer if queue.startswith("replies.") else GoneDeaf(consumer, self._deafened)


@pytest.fixture
def broker() -> Deafening:
    return Deafening()


async def test_a_deaf_agent_opens_new_consumers_and_works_on(
    broker: Deafening, orchestrator: ScriptedOrchestrator, start_agent: StartAgent, caplog: pytest.LogCaptureFixture
) -> None:
    await start_agent(slots=1)
    await orchestrator.ended(await orchestrator.dispatch("echo", message="heard"))

    broker.deafen()
    task = await orchestrator.dispatch("echo", message="unheard")

    result = await orchestrator.ended(task, timeout=20)
    assert result.status is ResultStatus.COMPLETED
    assert broker.reconnects == 1
    assert "agent.deaf" in caplog.text
    await eventually(lambda: "agent.hears_again" in caplog.text)


async def test_an_orchestrator_that_never_answers_heartbeats_makes_nobody_deaf(
    broker: Deafening, orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    orchestrator.hears = False
    await start_agent(heartbeat_seconds=0.05)

    await eventually(lambda: len(orchestrator.heartbeats) > 30)

    assert broker.reconnects == 0


async def test_an_agent_that_stays_deaf_ends_with_an_error_where_that_is_wanted(
    broker: Deafening, orchestrator: ScriptedOrchestrator, tmp_path: Path
) -> None:
    settings = AgentSettings.load(
        state_dir=tmp_path / "agent", heartbeat_seconds=0.1, deaf_exit_seconds=2, stop_grace_seconds=0
    )
    running = asyncio.create_task(
        run_agent(settings, SharedSettings(broker_url="memory://"), broker=broker, stop=asyncio.Event())
    )
    await eventually(lambda: len(orchestrator.heartbeats) > 3)

    orchestrator.hears = False

    with pytest.raises(AgentDeaf, match="DEAF_EXIT_SECONDS"):
        await asyncio.wait_for(running, 20)
