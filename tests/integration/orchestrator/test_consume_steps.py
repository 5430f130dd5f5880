"""What agents say of steps and files is stored before what follows it, and they are told when it is and not before."""

from typing import Any

import asyncpg
import pytest

from common.broker import topology
from common.broker.memory import MemoryBroker
from common.messages import LAST_STEP, Lease, StepStatus, Stored
from common.orders import ArtifactsStored, FilePiece, StepsStored
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.leases.service import LeaseService
from orchestrator.loops.bring_files import BringFiles
from orchestrator.loops.consume_progress import ConsumeProgress
from orchestrator.output.service import OutputService
from orchestrator.steps import queries
from orchestrator.steps.service import StepService
from orchestrator.tasks.service import TaskService
from tests.factories import make_chunk, make_piece, make_result, make_status, make_step, make_want
from tests.fakes.clock import FakeClock
from tests.integration.orchestrator.ledger import kinds_of
from tests.integration.orchestrator.scripted_artifacts import ScriptedArtifacts
from tests.integration.orchestrator.test_consume_replies import orders_of
from tests.integration.orchestrator.test_leases import running

END = make_step(5, LAST_STEP, status=StepStatus.SKIPPED)


@pytest.fixture
def artifacts() -> ScriptedArtifacts:
    return ScriptedArtifacts()


@pytest.fixture
def consume(
    output: OutputService, leases: LeaseService, broker: MemoryBroker, pool: Pool, artifacts: ScriptedArtifacts
) -> ConsumeProgress:
    files = BringFiles(artifacts, broker, FakeClock())
    return ConsumeProgress(output, leases, broker, steps=StepService(pool), artifacts=artifacts, files=files)


async def test_a_host_is_told_that_its_end_is_stored_when_it_is_and_not_before(
    consume: ConsumeProgress, tasks: TaskService, pool: Pool, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, agent_id = await running(tasks, pool)
    await broker.declare(topology.control_queue(agent_id))
    said = make_status(task_id, agent_id, steps=[END])

    async def full(*_: Any) -> None:
        raise asyncpg.DiskFullError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(queries, "store", full)
        with pytest.raises(asyncpg.DiskFullError):
            await consume.handle([said])
    too_early = await orders_of(broker, agent_id)
    await consume.handle([said])

    assert too_early == []
    assert await orders_of(broker, agent_id) == [StepsStored(task_id=task_id, attempt=1, through=LAST_STEP)]


async def test_an_end_whose_answer_was_lost_is_answered_again(
    consume: ConsumeProgress, tasks: TaskService, pool: Pool, broker: MemoryBroker
) -> None:
    task_id, agent_id = await running(tasks, pool)
    said = make_status(task_id, agent_id, steps=[END])

    await consume.handle([said])  # there is no queue for the answer yet
    await broker.declare(topology.control_queue(agent_id))
    await consume.handle([said])

    assert await orders_of(broker, agent_id) == [StepsStored(task_id=task_id, attempt=1, through=LAST_STEP)]
    assert (await kinds_of(pool, task_id)).count(Kind.TASK_STEP) == 1


async def test_steps_and_output_that_come_with_a_result_are_stored_before_it(
    consume: ConsumeProgress, tasks: TaskService, pool: Pool, broker: MemoryBroker
) -> None:
    task_id, agent_id = await running(tasks, pool)
    await broker.declare(topology.control_queue(agent_id))
    said = make_status(task_id, agent_id, make_chunk(0, "x", offset=0), steps=[END], pieces=[make_piece()])

    await consume.handle([make_result(task_id, agent_id), said])

    assert (await kinds_of(pool, task_id))[-3:] == [Kind.TASK_OUTPUT, Kind.TASK_STEP, Kind.TASK_COMPLETED]
    assert await orders_of(broker, agent_id) == [
        StepsStored(task_id=task_id, attempt=1, through=LAST_STEP),
        ArtifactsStored(task_id=task_id, attempt=1, names=["dist/a.whl"]),
        Stored(results=[Lease(task_id=task_id, attempt=1)]),
    ]


async def test_an_agent_that_wants_files_gets_each_and_hears_nothing_of_those_on_their_way(
    consume: ConsumeProgress, tasks: TaskService, pool: Pool, broker: MemoryBroker, artifacts: ScriptedArtifacts
) -> None:
    task_id, agent_id = await running(tasks, pool)
    await broker.declare(topology.control_queue(agent_id))
    wants = [make_want(agent_id, task_id=task_id, path=path) for path in ("a", "b", "c")]
    artifacts.files = {
        "a": FilePiece(want_id=task_id, data="aGVsbG8=", size=5, sha256="0" * 64),
        "b": None,
        "c": FilePiece(want_id=task_id, problem="there is no such file"),
    }

    await consume.handle(wants)

    got = await orders_of(broker, agent_id)
    assert [(piece.want_id, piece.raw, piece.problem) for piece in got if isinstance(piece, FilePiece)] == [
        (wants[0].want_id, b"hello", ""),
        (wants[2].want_id, b"", "there is no such file"),
    ]
