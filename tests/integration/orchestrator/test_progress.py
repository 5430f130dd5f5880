"""A report of progress is stored for the live attempt only, and told once."""

from uuid import UUID, uuid4

import pytest

from common.messages import ResultStatus
from common.progress import LONGEST_REPORT
from common.protocol import UnreadableMessage, WorkStatusEnvelope, decode
from orchestrator.database.pool import Pool
from orchestrator.events.model import Event, Kind
from orchestrator.leases.service import LeaseService
from orchestrator.output.service import OutputService
from orchestrator.tasks.model import Task
from orchestrator.tasks.service import TaskService
from tests.factories import make_chunk, make_new_task, make_result, make_status
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.ledger import events_of, let_leases_run_out


@pytest.fixture
async def task(tasks: TaskService, pool: Pool) -> tuple[UUID, UUID]:
    """A task that an agent runs."""
    new, agent_id = make_new_task(max_attempts=2), uuid4()
    await tasks.dispatch([new], by="caller")
    await lease_to(pool, new.task_id, agent_id=agent_id)
    return new.task_id, agent_id


async def claimed_again(tasks: TaskService, pool: Pool, task_id: UUID) -> Task:
    """Return a task that is put back as another agent runs it."""
    [_] = await lease_to(pool, task_id)
    return await tasks.get(task_id)


async def told(pool: Pool) -> list[Event]:
    return [event for event in await events_of(pool) if event.kind == Kind.TASK_PROGRESS]


async def test_a_report_is_kept_and_told_with_its_percentage(
    output: OutputService, tasks: TaskService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    await output.store([make_status(*task, progress="40% copying files")])
    await output.store([make_status(*task, progress="nearly there")])

    now = await tasks.get(task[0])
    first, second = await told(pool)
    assert (now.progress, now.percent) == ("nearly there", None)
    assert first.data == {"progress": "40% copying files", "percent": 40}
    assert second.data == {"progress": "nearly there", "percent": None}
    assert (first.task_id, first.trace_id, first.request_id) == (now.task_id, now.trace_id, now.request_id)
    assert (first.agent_id, first.attempt, first.actor) == (task[1], 1, str(task[1]))


async def test_of_reports_that_arrive_together_the_last_is_kept_and_told(
    output: OutputService, tasks: TaskService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    chunk = make_chunk(0, "output", offset=0)
    await output.store([make_status(*task, progress=f"{n}%") for n in range(50)] + [make_status(*task, chunk)])

    assert (await tasks.get(task[0])).progress == "49%"
    assert [event.data["percent"] for event in await told(pool)] == [49]


async def test_a_report_that_arrives_again_is_told_once(
    output: OutputService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    for _ in range(3):
        await output.store([make_status(*task, progress="40% copying")])

    assert len(await told(pool)) == 1


async def test_a_late_report_of_an_old_attempt_changes_nothing(
    output: OutputService, tasks: TaskService, leases: LeaseService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    await output.store([make_status(*task, progress="90% of the first")])
    await let_leases_run_out(pool)
    await leases.reap(limit=10)
    again = await claimed_again(tasks, pool, task[0])
    late = make_status(*task, progress="95% of the first")

    await output.store([late])
    assert again.agent_id is not None
    new = make_status(task[0], again.agent_id, attempt=2, progress="5% of the second")
    await output.store([new, late])
    await output.store([late])

    assert again.progress == ""
    assert (await tasks.get(task[0])).progress == "5% of the second"
    assert [(event.attempt, event.data["percent"]) for event in await told(pool)] == [(1, 90), (2, 5)]


@pytest.mark.parametrize("end", ["completed", "cancelled"])
async def test_a_report_after_the_end_changes_nothing(
    output: OutputService, tasks: TaskService, leases: LeaseService, task: tuple[UUID, UUID], pool: Pool, end: str
) -> None:
    await output.store([make_status(*task, progress="100% done")])
    if end == "cancelled":
        await tasks.cancel(task[0], by="caller")
    else:
        await leases.accept([make_result(*task, status=ResultStatus.COMPLETED)])

    await output.store([make_status(*task, progress="50% late")])

    assert (await tasks.get(task[0])).progress == "100% done"
    assert len(await told(pool)) == 1


async def test_an_agent_reports_on_its_own_work_only(
    output: OutputService, tasks: TaskService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    forged = make_status(task[0], uuid4(), progress="100% all is well")

    await output.store([make_status(*task, progress="3% begun"), forged])
    await output.store([forged])

    assert (await tasks.get(task[0])).progress == "3% begun"
    assert [event.agent_id for event in await told(pool)] == [task[1]]


async def test_what_an_agent_says_is_kept_as_one_line_that_can_be_seen(
    output: OutputService, tasks: TaskService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    await output.store([make_status(*task, progress="40% a\u200b  b\u00a0c")])
    await output.store([make_status(*task, progress="\u200b")])

    assert (await tasks.get(task[0])).progress == "40% a b c"
    assert len(await told(pool)) == 1


def test_a_report_has_its_largest_size_and_no_larger() -> None:
    def sent(length: int) -> bytes:
        status = make_status(uuid4(), uuid4(), progress="x" * LONGEST_REPORT)
        envelope = WorkStatusEnvelope(from_agent="agent", to_agent="orchestrator", payload=status)
        return envelope.model_dump_json().replace("x" * LONGEST_REPORT, "x" * length).encode()

    assert decode(sent(LONGEST_REPORT)).type == "work_status"
    with pytest.raises(UnreadableMessage, match=r"payload\.progress"):
        decode(sent(LONGEST_REPORT + 1))
