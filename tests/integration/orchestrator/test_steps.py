"""Inner steps are stored for the agent whose attempt it is, told once, and final when they are final."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from common.messages import MOST_STEPS, StepReport, StepStatus
from common.orders import StepsStored
from orchestrator.database.pool import Pool
from orchestrator.events.model import Event, Kind
from orchestrator.leases.service import LeaseService
from orchestrator.steps import queries
from orchestrator.steps.model import TaskStep
from orchestrator.steps.service import StepService
from orchestrator.tasks.service import TaskService
from tests.factories import make_new_task, make_result, make_status, make_step
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.ledger import events_of, let_leases_run_out

BEGUN, DONE, FAILED, SKIPPED = StepStatus
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def steps(pool: Pool) -> StepService:
    return StepService(pool)


@pytest.fixture
async def task(tasks: TaskService, pool: Pool) -> tuple[UUID, UUID]:
    """A task that an agent runs."""
    new, agent_id = make_new_task(max_attempts=2), uuid4()
    await tasks.dispatch([new], by="caller")
    await lease_to(pool, new.task_id, agent_id=agent_id)
    return new.task_id, agent_id


async def say(
    steps: StepService, task: tuple[UUID, UUID], *reports: StepReport, attempt: int = 1
) -> list[tuple[UUID, StepsStored]]:
    return await steps.store([make_status(*task, attempt=attempt, steps=list(reports))])


async def stored(pool: Pool, task_id: UUID) -> list[TaskStep]:
    async with pool.acquire() as db:
        return (await queries.of_tasks(db, [task_id])).get(task_id, [])


async def shown(pool: Pool, task_id: UUID) -> list[tuple[str, str, str]]:
    return [(step.name, step.status, step.message) for step in await stored(pool, task_id)]


async def told(pool: Pool) -> list[Event]:
    return [event for event in await events_of(pool) if event.kind == Kind.TASK_STEP]


async def test_a_step_is_kept_with_its_times_and_told_with_the_ids_of_its_task(
    steps: StepService, tasks: TaskService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    later = NOON + timedelta(seconds=90)
    await say(steps, task, make_step(2, "build", started_at=NOON))
    await say(steps, task, make_step(2, "build", status=DONE, finished_at=later, message="image 4f1a"))

    now = await tasks.get(task[0])
    first, second = await told(pool)
    assert await stored(pool, task[0]) == [TaskStep(task[0], 1, 2, "build", DONE, NOON, later, "image 4f1a")]
    assert first.data == {"position": 2, "name": "build", "status": "in_progress", "message": ""}
    assert second.data == {"position": 2, "name": "build", "status": "succeeded", "message": "image 4f1a"}
    assert (first.task_id, first.trace_id, first.request_id) == (now.task_id, now.trace_id, now.request_id)
    assert (first.agent_id, first.attempt, first.actor) == (task[1], 1, str(task[1]))


async def test_a_report_that_comes_twice_is_stored_and_told_once(
    steps: StepService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    begun, done = make_step(0, "analyze"), make_step(0, "analyze", status=DONE)

    await say(steps, task, begun, begun)
    await say(steps, task, begun)
    await say(steps, task, done, done)
    await say(steps, task, begun, done)

    assert await shown(pool, task[0]) == [("analyze", "succeeded", "")]
    assert [event.data["status"] for event in await told(pool)] == ["in_progress", "succeeded"]


async def test_a_report_that_two_orchestrators_take_at_once_is_told_once(
    steps: StepService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    reports = [make_step(number, f"step-{number}", status=DONE) for number in range(6)]

    await asyncio.gather(*(say(steps, task, *order) for order in (reports, reports[::-1]) * 5))

    assert len(await stored(pool, task[0])) == 6
    assert len(await told(pool)) == 6


async def test_steps_that_come_together_are_told_in_the_order_in_which_they_were_taken(
    steps: StepService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    names = ["analyze", "patch", "build"]
    reports = [make_step(place, name, status=status) for place, name in enumerate(names) for status in (BEGUN, DONE)]

    await say(steps, task, *reports)

    assert [(event.data["name"], event.data["status"]) for event in await told(pool)] == [
        (name, status) for name in names for status in ("in_progress", "succeeded")
    ]


@pytest.mark.parametrize("final", [DONE, FAILED, SKIPPED])
async def test_what_is_final_never_changes_whatever_comes_late_or_out_of_order(
    steps: StepService, task: tuple[UUID, UUID], pool: Pool, final: StepStatus
) -> None:
    await say(steps, task, make_step(4, "verify", status=final, message="as it was", finished_at=NOON))
    before = await stored(pool, task[0])

    for status in StepStatus:
        await say(steps, task, make_step(9, "verify", status=status, message="late", started_at=NOON))

    assert await stored(pool, task[0]) == before
    assert len(await told(pool)) == 1


async def test_a_step_under_way_may_say_something_new(steps: StepService, task: tuple[UUID, UUID], pool: Pool) -> None:
    await say(steps, task, make_step(4, "verify", started_at=NOON, message="try 1"))
    await say(steps, task, make_step(4, "verify", started_at=NOON + timedelta(hours=1), message="try 2"))

    [step] = await stored(pool, task[0])
    assert (step.message, step.started_at) == ("try 2", NOON)
    assert [event.data["message"] for event in await told(pool)] == ["try 1", "try 2"]


async def test_an_agent_reports_steps_of_its_own_attempts_only(
    steps: StepService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    forged = make_step(0, "analyze", status=FAILED, message="forged")
    stranger = (task[0], uuid4())

    await say(steps, stranger, forged)
    await steps.store([make_status(*stranger, steps=[forged]), make_status(*task, steps=[make_step(0, "analyze")])])

    assert await shown(pool, task[0]) == [("analyze", "in_progress", "")]
    assert [event.agent_id for event in await told(pool)] == [task[1]]


async def test_steps_of_an_attempt_or_a_task_that_nobody_knows_are_not_stored(
    steps: StepService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    await say(steps, task, make_step(), attempt=2)
    await say(steps, (uuid4(), task[1]), make_step())

    assert await shown(pool, task[0]) == []
    assert await told(pool) == []


async def test_a_host_may_forget_an_end_that_is_stored_or_can_never_be(
    steps: StepService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    end = [make_step(4, "verify", status=FAILED), make_step(5, "rollback", status=DONE)]
    unknown = uuid4()

    assert await say(steps, task, make_step(5, "rollback")) == []
    for task_id, attempt in ((task[0], 1), (task[0], 1), (task[0], 7), (unknown, 1)):
        assert await say(steps, (task_id, task[1]), *end, attempt=attempt) == [
            (task[1], StepsStored(task_id=task_id, attempt=attempt, through="rollback"))
        ]

    assert await shown(pool, task[0]) == [("verify", "failed", ""), ("rollback", "succeeded", "")]


async def test_what_happened_after_the_lease_was_lost_is_stored_with_its_attempt(
    steps: StepService, leases: LeaseService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    await say(steps, task, make_step(3, "restart"))
    await let_leases_run_out(pool)
    await leases.reap(limit=10)
    await say(steps, task, make_step(3, "restart", status=FAILED, message="the lease was lost"))
    waiting = await shown(pool, task[0])
    [again] = await lease_to(pool, task[0])
    heir = (task[0], again.agent_id)

    await say(steps, task, make_step(5, "rollback", status=DONE))
    while_second_has_none = await shown(pool, task[0])
    await say(steps, heir, make_step(0, "analyze"), attempt=2)

    assert waiting == [("restart", "failed", "the lease was lost")]
    assert while_second_has_none == [*waiting, ("rollback", "succeeded", "")]
    assert await shown(pool, task[0]) == [("analyze", "in_progress", "")]
    assert [(event.attempt, event.data["name"]) for event in await told(pool)] == [
        (1, "restart"),
        (1, "restart"),
        (1, "rollback"),
        (2, "analyze"),
    ]


@pytest.mark.parametrize("end", ["completed", "cancelled"])
async def test_what_happened_after_the_end_of_the_task_is_stored(
    steps: StepService, tasks: TaskService, leases: LeaseService, task: tuple[UUID, UUID], pool: Pool, end: str
) -> None:
    if end == "cancelled":
        await tasks.cancel(task[0], by="caller")
    else:
        await leases.accept([make_result(*task)])

    await say(steps, task, make_step(5, "rollback", status=SKIPPED))

    assert await shown(pool, task[0]) == [("rollback", "skipped", "")]
    assert len(await told(pool)) == 1


async def test_an_attempt_has_a_hundred_steps_and_no_more_however_they_come(
    steps: StepService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    def many(begin: int, count: int, status: StepStatus) -> list[StepReport]:
        return [
            make_step(number % MOST_STEPS, f"step-{number}", status=status) for number in range(begin, begin + count)
        ]

    await say(steps, task, *many(0, 60, BEGUN))
    messages = [make_status(*task, steps=many(begin, 60, BEGUN)) for begin in (0, 60, 120)]
    await steps.store(messages)
    await say(steps, task, *many(400, 30, DONE))
    full = await stored(pool, task[0])
    await say(steps, task, *[make_step(step.position, step.name, status=DONE) for step in full])

    assert len(full) == MOST_STEPS
    assert [step.status for step in await stored(pool, task[0])] == [DONE] * MOST_STEPS
    assert len(await told(pool)) == 2 * MOST_STEPS


async def test_steps_are_shown_in_their_order_for_each_of_many_tasks(
    steps: StepService, tasks: TaskService, pool: Pool
) -> None:
    new = [make_new_task() for _ in range(3)]
    await tasks.dispatch(new, by="caller")
    agents = {one.task_id: (await lease_to(pool, one.task_id))[0].agent_id for one in new}
    with_steps = list(agents)[:2]
    for task_id in with_steps:
        await say(steps, (task_id, agents[task_id]), make_step(1, "b"), make_step(0, "z"), make_step(1, "a"))

    async with pool.acquire() as db:
        found = await queries.of_tasks(db, list(agents))

    assert set(found) == set(with_steps)
    assert [[step.name for step in of_task] for of_task in found.values()] == [["z", "a", "b"]] * 2


async def test_a_message_without_steps_costs_the_ledger_nothing(steps: StepService, task: tuple[UUID, UUID]) -> None:
    closed = StepService(None)  # type: ignore[arg-type]

    assert await closed.store([make_status(*task, progress="50%")]) == []
