"""What changes between the read and the write of an end is noticed: of a result, a retry, a lost lease or a cancel."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import ModuleType
from uuid import UUID, uuid4

import pytest

from common.lifecycle import Status
from common.messages import ResultStatus
from orchestrator.database.pool import Pool, transaction
from orchestrator.events.model import Kind
from orchestrator.leases import finish_queries, queries
from orchestrator.leases.model import End
from orchestrator.leases.rules import Finish, Stale
from orchestrator.leases.service import LeaseService
from orchestrator.tasks import queries as task_queries
from orchestrator.tasks.service import TaskHasEnded, TaskService
from tests.eventually import eventually
from tests.factories import make_new_task, make_renewal, make_result
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.ledger import kinds_of, let_leases_run_out
from tests.integration.orchestrator.test_leases import running
from tests.integration.orchestrator.test_leases_in_between import lose
from tests.integration.orchestrator.test_plain import before, waits

Ends = Callable[[TaskService, LeaseService, UUID, UUID], Awaitable[object]]

FREE = "SELECT task_id FROM task WHERE task_id = $1 FOR UPDATE SKIP LOCKED"
ENDED_ATTEMPTS = "SELECT array_agg(number ORDER BY number) FROM earlier_attempt WHERE task_id = $1"
REPORTED = "SELECT output_bytes FROM task WHERE task_id = $1"
ORDERED = "SELECT recipient FROM outbox"


# Results


async def goes_to_its_agent_again(pool: Pool, task_id: UUID, agent_id: UUID) -> None:
    await lose(pool, task_id)
    await lease_to(pool, task_id, agent_id=agent_id)


@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "read"])
@pytest.mark.parametrize("goes_to", ["nobody", "its agent", "another"])
async def test_a_result_whose_lease_is_lost_before_it_is_written_ends_nothing(
    tasks: TaskService,
    leases: LeaseService,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    goes_to: str,
    remembered: bool,
) -> None:
    task_id, agent_id = await running(tasks, pool, max_attempts=2)
    if remembered:
        leases.given.add(await tasks.get(task_id), agent_id, attempt=1)

    async def happens() -> None:
        await lose(pool, task_id)
        await succeeds(tasks, leases, pool, agent_id)
        if goes_to != "nobody":
            await lease_to(pool, task_id, agent_id=agent_id if goes_to == "its agent" else uuid4())

    before(monkeypatch, finish_queries, "finish", happens)

    [verdict] = await leases.accept([make_result(task_id, agent_id)])

    assert verdict == Stale("the attempt has ended: lost")
    task = await tasks.get(task_id)
    expected = (Status.PENDING, 1) if goes_to == "nobody" else (Status.RUNNING, 2)
    assert (task.status, task.attempt) == expected


async def succeeds(tasks: TaskService, leases: LeaseService, pool: Pool, agent_id: UUID) -> None:
    """Let an agent run another task: results of one that has just lost a lease go another way."""
    other = make_new_task()
    await tasks.dispatch([other], by="caller")
    await lease_to(pool, other.task_id, agent_id=agent_id)
    assert await leases.accept([make_result(other.task_id, agent_id)]) == [Finish(Status.COMPLETED)]


async def test_a_result_that_waits_for_a_cancel_ends_nothing(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool)

    async with transaction(pool) as db:
        await task_queries.cancel(db, [task_id])
        accepting = asyncio.create_task(leases.accept([make_result(task_id, agent_id)]))
        await eventually(lambda: waits(pool))

    assert await accepting == [Stale("the attempt has ended: cancelled")]
    assert (await tasks.get(task_id)).status is Status.CANCELLED


async def test_the_statement_that_ends_plain_tasks_ends_none_for_a_stranger(tasks: TaskService, pool: Pool) -> None:
    task_id, _ = await running(tasks, pool)
    end = End(task_id, 1, outcome="completed", status=Status.COMPLETED)

    async with pool.acquire() as db:
        ended, _ = await finish_queries.finish(db, [(end, uuid4(), 1)], [], [], {})

    assert ended == set()
    assert (await tasks.get(task_id)).status is Status.RUNNING


async def test_a_failure_whose_task_is_cancelled_before_it_is_judged_is_not_tried_again(
    tasks: TaskService, leases: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, agent_id = await running(tasks, pool, max_attempts=2)
    before(monkeypatch, task_queries, "lock", lambda: tasks.cancel(task_id, by="caller"))

    [verdict] = await leases.accept([make_result(task_id, agent_id, status=ResultStatus.FAILED, retryable=True)])

    assert verdict == Stale("the attempt has ended: cancelled")
    assert (await tasks.get(task_id)).status is Status.CANCELLED
    assert Kind.TASK_REQUEUED not in await kinds_of(pool, task_id)


# Lost leases


async def test_a_lease_that_is_renewed_before_its_task_is_taken_back_goes_on(
    tasks: TaskService, leases: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, agent_id = await running(tasks, pool, max_attempts=2)
    await let_leases_run_out(pool)
    before(monkeypatch, queries, "lock_expired", lambda: leases.renew([make_renewal(task_id, agent_id)]))

    assert await leases.reap(limit=10) == 0

    task = await tasks.get(task_id)
    assert (task.status, task.attempt) == (Status.RUNNING, 1)


@pytest.mark.parametrize("end", ["completed", "cancelled"])
async def test_a_task_that_ends_before_it_is_taken_back_stays_ended(
    tasks: TaskService, leases: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    task_id, agent_id = await running(tasks, pool, max_attempts=2)
    await let_leases_run_out(pool)

    async def ends() -> None:
        if end == "cancelled":
            await tasks.cancel(task_id, by="caller")
        else:
            await leases.accept([make_result(task_id, agent_id)])

    before(monkeypatch, queries, "lock_expired", ends)

    assert await leases.reap(limit=10) == 0

    assert (await tasks.get(task_id)).status == end
    assert Kind.TASK_REQUEUED not in await kinds_of(pool, task_id)


# Cancels


async def test_a_task_that_ends_before_its_cancel_is_written_stays_ended(
    tasks: TaskService, leases: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, agent_id = await running(tasks, pool)
    before(monkeypatch, task_queries, "lock", lambda: leases.accept([make_result(task_id, agent_id)]))

    with pytest.raises(TaskHasEnded):
        await tasks.cancel(task_id, by="caller")

    assert (await tasks.get(task_id)).status is Status.COMPLETED
    assert Kind.TASK_CANCELLED not in await kinds_of(pool, task_id)


async def test_the_agent_of_a_task_that_is_leased_before_its_cancel_is_written_is_told_to_stop_it(
    tasks: TaskService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, agent_id = make_new_task(), uuid4()
    await tasks.dispatch([task], by="caller")
    before(monkeypatch, task_queries, "lock", lambda: lease_to(pool, task.task_id, agent_id=agent_id))

    await tasks.cancel(task.task_id, by="caller")

    async with pool.acquire() as db:
        assert await db.fetchval(ORDERED) == str(agent_id)
    assert (await tasks.get(task.task_id)).status is Status.CANCELLED


async def test_nobody_is_told_to_stop_a_task_that_is_put_back_before_its_cancel_is_written(
    tasks: TaskService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, _ = await running(tasks, pool, max_attempts=2)
    before(monkeypatch, task_queries, "lock", lambda: lose(pool, task_id))

    await tasks.cancel(task_id, by="caller")

    async with pool.acquire() as db:
        assert await db.fetchval(ORDERED) is None
    assert (await tasks.get(task_id)).status is Status.CANCELLED


async def test_a_task_of_a_trace_that_ends_before_its_cancel_is_written_stays_ended(
    tasks: TaskService, leases: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, agent_id = await running(tasks, pool)
    trace_id = (await tasks.get(task_id)).trace_id
    before(monkeypatch, task_queries, "lock", lambda: leases.accept([make_result(task_id, agent_id)]))

    answer = await tasks.cancel_trace(trace_id, by="caller")

    assert (answer.cancelled, answer.already_ended) == ([], 1)
    assert (await tasks.get(task_id)).status is Status.COMPLETED
    assert Kind.TASK_CANCELLED not in await kinds_of(pool, task_id)


async def test_a_task_that_is_cancelled_twice_at_once_is_cancelled_once(
    tasks: TaskService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, _ = await running(tasks, pool)
    before(monkeypatch, task_queries, "lock", lambda: tasks.cancel(task_id, by="ann"))

    await tasks.cancel(task_id, by="caller")

    assert (await kinds_of(pool, task_id)).count(Kind.TASK_CANCELLED) == 1
    async with pool.acquire() as db:
        assert len(await db.fetch(ORDERED)) == 1


# What is judged is held until it is written


async def is_reported(tasks: TaskService, leases: LeaseService, task_id: UUID, agent_id: UUID) -> None:
    await leases.accept([make_result(task_id, agent_id)])


async def fails(tasks: TaskService, leases: LeaseService, task_id: UUID, agent_id: UUID) -> None:
    await leases.accept([make_result(task_id, agent_id, status=ResultStatus.FAILED, retryable=True)])


async def is_cancelled(tasks: TaskService, leases: LeaseService, task_id: UUID, agent_id: UUID) -> None:
    await tasks.cancel(task_id, by="caller")


@pytest.mark.parametrize(
    ("end", "place", "write"),
    [(is_reported, queries, "end"), (fails, queries, "requeue"), (is_cancelled, task_queries, "cancel")],
    ids=["result", "retry", "cancel"],
)
async def test_nobody_else_changes_a_task_between_the_judgement_and_its_end(
    tasks: TaskService,
    leases: LeaseService,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    end: Ends,
    place: ModuleType,
    write: str,
) -> None:
    task_id, agent_id = await running(tasks, pool, ordering_key="a key", max_attempts=2)
    free: list[bool] = []
    before(monkeypatch, place, write, lambda: look(pool, task_id, free))

    await end(tasks, leases, task_id, agent_id)

    assert free == [False]


async def test_nobody_else_changes_a_task_between_the_end_of_its_lease_and_its_way_back(
    tasks: TaskService, leases: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, _ = await running(tasks, pool, max_attempts=2)
    await let_leases_run_out(pool)
    free: list[bool] = []
    before(monkeypatch, queries, "requeue", lambda: look(pool, task_id, free))

    assert await leases.reap(limit=10) == 1

    assert free == [False]


async def look(pool: Pool, task_id: UUID, free: list[bool]) -> None:
    """Note whether somebody else may change a task just now."""
    async with pool.acquire() as db:
        free.append(await db.fetchval(FREE, task_id) is not None)


# The statements ask again all the same


@pytest.mark.parametrize("write", ["end", "requeue"])
async def test_what_is_written_of_an_earlier_attempt_changes_nothing(
    tasks: TaskService, pool: Pool, write: str
) -> None:
    task_id, agent_id = await running(tasks, pool, max_attempts=3)
    await goes_to_its_agent_again(pool, task_id, agent_id)

    await written(pool, write, task_id, attempt=1)

    task = await tasks.get(task_id)
    assert (task.status, task.attempt) == (Status.RUNNING, 2)
    async with pool.acquire() as db:
        assert await db.fetchval(ENDED_ATTEMPTS, task_id) == [1]


@pytest.mark.parametrize("write", ["end", "requeue"])
async def test_what_is_written_of_a_cancelled_attempt_changes_nothing(
    tasks: TaskService, pool: Pool, write: str
) -> None:
    task_id, _ = await running(tasks, pool, max_attempts=2)
    await tasks.cancel(task_id, by="caller")

    await written(pool, write, task_id, attempt=1)

    assert (await tasks.get(task_id)).status is Status.CANCELLED
    async with pool.acquire() as db:
        assert await db.fetchval(ENDED_ATTEMPTS, task_id) is None


async def written(pool: Pool, write: str, task_id: UUID, *, attempt: int) -> None:
    """Write the end of an attempt without the lock and the judgement that come before it."""
    end = End(task_id, attempt, outcome="failed", status=Status.FAILED)
    async with pool.acquire() as db:
        if write == "end":
            await queries.end(db, [end])
        else:
            await queries.requeue(db, [(end, datetime.now(UTC))])


async def test_how_much_was_written_is_noted_of_the_attempt_that_was_cancelled_only(
    tasks: TaskService, pool: Pool
) -> None:
    runs, _ = await running(tasks, pool)
    cancelled, agent_id = await running(tasks, pool, max_attempts=2)
    await goes_to_its_agent_again(pool, cancelled, agent_id)
    await tasks.cancel(cancelled, by="caller")
    reports = [End(task_id, 1, outcome="cancelled", output_bytes={"stdout": 5}) for task_id in (runs, cancelled)]

    async with pool.acquire() as db:
        await queries.report_stopped(db, reports)

        assert [await db.fetchval(REPORTED, task_id) for task_id in (runs, cancelled)] == [None, None]


async def test_a_cancel_that_is_written_after_the_end_changes_nothing(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool)
    await leases.accept([make_result(task_id, agent_id)])

    async with pool.acquire() as db:
        await task_queries.cancel(db, [task_id])

    assert (await tasks.get(task_id)).status is Status.COMPLETED


async def test_an_end_of_waiting_that_is_written_after_the_lease_changes_nothing(
    tasks: TaskService, pool: Pool
) -> None:
    task_id, _ = await running(tasks, pool)

    async with pool.acquire() as db:
        await task_queries.expire(db, {task_id: "expired"}, error_code=None)

    assert (await tasks.get(task_id)).status is Status.RUNNING
