"""An agent whose broker is away goes on, and ends when it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import agents.agent
from agents.main import run_agent
from agents.settings import AgentSettings
from common.broker.base import BrokerUnavailable, Consumer, Outgoing, Queue
from common.broker.memory import MemoryBroker
from common.broker.topology import REPLY_QUEUES, RESULTS
from common.config import SharedSettings
from common.messages import ResultStatus
from tests.eventually import eventually
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator


class Cable(MemoryBroker):
    """The way of one agent to the broker that it shares with the orchestrator; it can be cut."""

    def __init__(self, far: MemoryBroker) -> None:
        super().__init__()
        self._far = far
        self.is_cut = False
        self.failures = 0

    async def declare(self, *queues: Queue, keep: bool = True) -> None:
        self._check()
        await self._far.declare(*queues, keep=keep)

    async def publish(self, *messages: Outgoing) -> None:
        self._check()
        await self._far.publish(*messages)

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumer]:
        self._check()
        async with self._far.consume(queue, prefetch=prefetch) as consumer:
            yield consumer

    def _check(self) -> None:
        if self.is_cut:
            self.failures += 1
            raise BrokerUnavailable("cut")


@asynccontextmanager
async def running(cable: Cable, state_dir: Path, stop: asyncio.Event) -> AsyncIterator[asyncio.Task[None]]:
    settings = AgentSettings.load(
        state_dir=state_dir, slots=1, heartbeat_seconds=0.1, stop_grace_seconds=0, kill_grace_seconds=0.2
    )
    shared = SharedSettings(broker_url="memory://")
    ended = asyncio.create_task(run_agent(settings, shared, broker=cable, stop=stop))
    try:
        yield ended
    finally:
        stop.set()
        await ended


async def test_what_is_said_while_the_broker_is_away_arrives_afterwards(
    broker: MemoryBroker, orchestrator: ScriptedOrchestrator, tmp_path: Path
) -> None:
    cable = Cable(broker)
    gate = tmp_path / "gate"
    async with running(cable, tmp_path / "agent", asyncio.Event()):
        task = await orchestrator.shell(f"echo before; while [ ! -e {gate} ]; do sleep 0.02; done; seq 1 300000")
        await eventually(lambda: orchestrator.output(task) == "before\n")

        cable.is_cut = True
        gate.touch()
        await eventually(lambda: cable.failures > 5)
        assert orchestrator.result(task) is None
        cable.is_cut = False

        result = await orchestrator.ended(task)

    assert result.status is ResultStatus.COMPLETED
    assert orchestrator.output(task) == "before\n" + "".join(f"{number}\n" for number in range(1, 300_001))


async def test_an_agent_whose_consumer_fails_comes_back(
    broker: MemoryBroker, orchestrator: ScriptedOrchestrator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cable = Cable(broker)
    async with running(cable, tmp_path / "agent", asyncio.Event()):
        await eventually(lambda: orchestrator.heartbeats)
        await broker.delete(RESULTS)
        # There is no queue for its report to go to, so settling it fails and the consumer is thrown away.
        await orchestrator.publish_work(b"not a message")
        await eventually(lambda: "loop.failed" in caplog.text)
        await broker.declare(*REPLY_QUEUES)
        task = await orchestrator.dispatch("echo", message="x")

        assert (await orchestrator.ended(task)).status is ResultStatus.COMPLETED


async def test_a_stop_does_not_wait_for_ever_for_a_broker_that_is_away(
    broker: MemoryBroker, orchestrator: ScriptedOrchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents.agent, "REPORT_SECONDS", 0.2)
    cable, stop = Cable(broker), asyncio.Event()
    async with running(cable, tmp_path / "agent", stop) as ended:
        task = await orchestrator.shell("echo running; sleep 60")
        await eventually(lambda: orchestrator.output(task))
        cable.is_cut = True
        stop.set()

        await asyncio.wait_for(ended, 10)

    assert orchestrator.result(task) is None
