"""What agents say is stored in the order in which it counts, and they are told so when it is stored and not before."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from common.broker import topology
from common.broker.memory import MemoryBroker
from common.lifecycle import Status
from common.loop import Wake
from common.messages import Lease, Stored, WantFile
from common.orders import FilePiece
from common.protocol import ControlEnvelope, decode
from orchestrator.database.pool import Pool
from orchestrator.dead_letters.service import DeadLetterService
from orchestrator.leases import finish_queries
from orchestrator.leases.service import LeaseService
from orchestrator.loops.bring_files import BringFiles
from orchestrator.loops.consume_progress import ConsumeProgress
from orchestrator.loops.consume_results import ConsumeResults
from orchestrator.output.service import OutputService
from orchestrator.policy.service import open_policy
from orchestrator.probes.service import ProbeService
from orchestrator.steps.service import StepService
from orchestrator.tasks.service import TaskService
from tests.factories import make_chunk, make_result, make_status
from tests.fakes.clock import FakeClock
from tests.integration.orchestrator.scripted_artifacts import ScriptedArtifacts
from tests.integration.orchestrator.test_leases import running


def consume_progress(
    pool: Pool, leases: LeaseService, broker: MemoryBroker, artifacts: ScriptedArtifacts, clock: FakeClock
) -> ConsumeProgress:
    files = BringFiles(artifacts, broker, clock)
    return ConsumeProgress(
        OutputService(pool), leases, broker, steps=StepService(pool), artifacts=artifacts, files=files
    )


async def orders_of(broker: MemoryBroker, agent_id: UUID) -> Sequence[object]:
    """Take what an agent was told."""
    queue = topology.control_queue(agent_id).name
    orders: list[object] = []
    async with broker.consume(queue, prefetch=10) as consumer:
        while await broker.depth(queue):
            for delivery in await consumer.receive(10):
                envelope = decode(delivery.body)
                assert isinstance(envelope, ControlEnvelope)
                orders.append(envelope.payload.order)
                await consumer.ack(delivery)
    return orders


async def test_an_agent_is_told_that_its_result_is_stored_when_it_is_and_not_before(
    tasks: TaskService, leases: LeaseService, pool: Pool, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = DeadLetterService(pool, broker, tasks, open_policy(None), Wake())
    consume = ConsumeResults(leases, ProbeService(pool, uuid4()), letters, broker)
    task_id, agent_id = await running(tasks, pool)
    await broker.declare(topology.control_queue(agent_id))

    async def full(*_: Any) -> None:
        raise asyncpg.DiskFullError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(finish_queries, "finish", full)
        with pytest.raises(asyncpg.DiskFullError):
            await consume.handle([make_result(task_id, agent_id)])
    too_early = await orders_of(broker, agent_id)
    await consume.handle([make_result(task_id, agent_id)])

    assert too_early == []
    assert (await tasks.get(task_id)).status is Status.COMPLETED
    assert await orders_of(broker, agent_id) == [Stored(results=[Lease(task_id=task_id, attempt=1)])]


async def test_the_progress_that_comes_with_a_result_is_kept(
    tasks: TaskService, leases: LeaseService, pool: Pool, broker: MemoryBroker
) -> None:
    consume = consume_progress(pool, leases, broker, ScriptedArtifacts(), FakeClock())
    task_id, agent_id = await running(tasks, pool)
    said = make_status(task_id, agent_id, make_chunk(0, "hello", offset=0), progress="100% done")

    await consume.handle([said, make_result(task_id, agent_id)])

    task = await tasks.get(task_id)
    assert (task.status, task.progress) == (Status.COMPLETED, "100% done")


class SlowArtifacts(ScriptedArtifacts):
    """Has nothing for who asks, and lets the clock go on meanwhile."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        super().__init__()
        self.asked = list[str]()
        self._clock = clock
        self._seconds = seconds

    async def piece(self, want: WantFile) -> FilePiece | None:
        self.asked.append(want.path)
        self._clock.advance(seconds=self._seconds)
        return None


@pytest.mark.parametrize(("seconds", "asked"), [(0.5, ["a", "b", "c"]), (1.0, ["a", "b"]), (2.0, ["a"])])
async def test_files_that_come_slowly_hold_up_what_follows_for_a_moment_only(
    leases: LeaseService,
    pool: Pool,
    broker: MemoryBroker,
    seconds: float,
    asked: list[str],
) -> None:
    clock, agent_id = FakeClock(), uuid4()
    artifacts = SlowArtifacts(clock, seconds)
    consume = consume_progress(pool, leases, broker, artifacts, clock)

    await consume.handle(
        [
            WantFile(want_id=uuid4(), agent_id=agent_id, task_id=uuid4(), attempt=1, path=path, offset=0)
            for path in ("a", "b", "c")
        ]
    )

    assert artifacts.asked == asked
