"""One agent has a task, and only its result counts."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

from common.lifecycle import Status
from common.messages import Lease, Renew, ResultStatus
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.leases import queries
from orchestrator.leases.grants import granted
from orchestrator.leases.model import Asker
from orchestrator.leases.service import LeaseService
from orchestrator.tasks.service import TaskService
from tests.factories import make_chunk, make_new_task, make_result
from tests.integration.ledger import lease_to, register
from tests.integration.orchestrator.ledger import events_of, kinds_of, let_leases_run_out


async def running(tasks: TaskService, pool: Pool, **values: object) -> tuple[UUID, UUID]:
    """Dispatch a task and lease it to an agent; return task and agent."""
    task, agent_id = make_new_task(**values), uuid4()
    await tasks.dispatch([task], by="caller")
    [_] = await lease_to(pool, task.task_id, agent_id=agent_id)
    return task.task_id, agent_id


async def test_the_grant_carries_the_work_and_the_ids_of_the_dispatch(tasks: TaskService, pool: Pool) -> None:
    task = make_new_task(parameters={"message": "grüße"}, hints={"agent_type": "infra"})
    await tasks.dispatch([task], by="caller")

    [leased] = await lease_to(pool, task.task_id)

    grant = granted(
        leased.task,
        leased.claim_id,
        attempt=leased.attempt,
        lease=leased.lease,
        max_output_bytes=1000,
    )
    assert grant.work.parameters == {"message": "grüße"}
    assert (grant.trace_id, grant.request_id) == (task.trace_id, task.request_id)
    assert (grant.attempt, grant.lease_seconds) == (1, 30.0)
    assert grant.claim_id == (await tasks.get(task.task_id)).claim_id


async def test_of_many_agents_that_are_chosen_for_a_task_at_once_one_gets_it(tasks: TaskService, pool: Pool) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")

    leased = await asyncio.gather(*(lease_to(pool, task.task_id) for _ in range(20)))

    assert sum(map(len, leased)) == 1
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]


async def test_what_does_not_wait_is_not_leased(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    cancelled, ended = make_new_task(), make_new_task()
    await tasks.dispatch([cancelled, ended], by="caller")
    await tasks.cancel(cancelled.task_id, by="caller")
    agent_id = uuid4()
    await lease_to(pool, ended.task_id, agent_id=agent_id)
    assert await lease_to(pool, ended.task_id) == [], "it runs"
    await leases.accept([make_result(ended.task_id, agent_id)])

    assert await lease_to(pool, cancelled.task_id, ended.task_id) == []


async def test_a_task_that_changed_since_it_was_read_is_not_leased(tasks: TaskService, pool: Pool) -> None:
    task_id, _ = await running(tasks, pool, max_attempts=2)
    before = await tasks.get(task_id)
    await let_leases_run_out(pool)
    await LeaseService(pool, lease=timedelta(seconds=30), policy=RetryPolicy(base=timedelta(0))).reap(limit=1)
    agent_id = uuid4()
    asker = Asker(agent_id, "infra", await register(pool, agent_id), 1, timedelta(seconds=30))
    old = replace(before, attempt=before.attempt - 1)

    async with pool.acquire() as db:
        leased, rooms = await queries.lease(db, [(old, asker)], [], trial=timedelta(minutes=1))

    assert (leased, rooms) == (set(), [])


async def test_a_result_ends_the_task_with_everything_that_it_says(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool)

    result = make_result(task_id, agent_id, chunks=[make_chunk(0, "hello", offset=0)], duration_ms=1234)
    await leases.accept([result])

    task = await tasks.get(task_id)
    assert (task.status, task.exit_code, task.duration_ms, task.output) == (Status.COMPLETED, 0, 1234, "hello")
    assert task.finished_at is not None
    assert await kinds_of(pool, task_id) == [
        Kind.TASK_DISPATCHED,
        Kind.TASK_CLAIMED,
        Kind.TASK_OUTPUT,
        Kind.TASK_COMPLETED,
    ]


async def test_the_same_result_twice_counts_once(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    task_id, agent_id = await running(tasks, pool)
    result = make_result(task_id, agent_id)

    await leases.accept([result, result])
    await leases.accept([result])

    assert (await kinds_of(pool, task_id)).count(Kind.TASK_COMPLETED) == 1
    assert Kind.TASK_RESULT_REFUSED not in await kinds_of(pool, task_id)


async def test_a_result_of_another_agent_or_attempt_is_noted_and_changes_nothing(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool)

    await leases.accept([make_result(task_id, uuid4())])
    await leases.accept([make_result(task_id, agent_id, attempt=7)])

    assert (await tasks.get(task_id)).status is Status.RUNNING
    assert (await kinds_of(pool, task_id)).count(Kind.TASK_RESULT_REFUSED) == 2


async def test_a_result_after_a_cancel_changes_nothing(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    task_id, agent_id = await running(tasks, pool)
    await tasks.cancel(task_id, by="caller")

    await leases.accept([make_result(task_id, agent_id)])

    assert (await tasks.get(task_id)).status is Status.CANCELLED
    assert (await kinds_of(pool, task_id))[-1] == Kind.TASK_RESULT_REFUSED


async def test_what_an_agent_stopped_after_a_cancel_is_noted_once_with_its_output(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool)
    await tasks.cancel(task_id, by="caller")
    report = make_result(
        task_id, agent_id, status=ResultStatus.CANCELLED, exit_code=143, chunks=[make_chunk(0, "last", offset=0)]
    )

    await leases.accept([report])
    await leases.accept([report])

    assert (await tasks.get(task_id)).status is Status.CANCELLED
    assert (await kinds_of(pool, task_id))[-2:] == [Kind.TASK_OUTPUT, Kind.TASK_STOPPED]
    assert (await kinds_of(pool, task_id)).count(Kind.TASK_STOPPED) == 1


async def test_a_retryable_failure_is_tried_again_until_attempts_are_used_up(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task = make_new_task(max_attempts=2)
    agent_id = uuid4()
    await tasks.dispatch([task], by="caller")
    for attempt in (1, 2):
        [_] = await lease_to(pool, task.task_id, agent_id=agent_id)
        failed = make_result(task.task_id, agent_id, status=ResultStatus.FAILED, retryable=True, attempt=attempt)
        await leases.accept([failed])

    found = await tasks.get(task.task_id)
    assert (found.status, found.attempt) == (Status.FAILED, 2)
    assert await kinds_of(pool, task.task_id) == [
        Kind.TASK_DISPATCHED,
        Kind.TASK_CLAIMED,
        Kind.TASK_REQUEUED,
        Kind.TASK_CLAIMED,
        Kind.TASK_FAILED,
    ]


async def test_a_task_that_was_handed_back_untouched_can_still_start_as_often_as_allowed(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool, max_attempts=1)
    await leases.accept(
        [make_result(task_id, agent_id, status=ResultStatus.FAILED, retryable=True, started=False, duration_ms=0)]
    )

    [_] = await lease_to(pool, task_id, agent_id=agent_id)
    await leases.accept([make_result(task_id, agent_id, attempt=2)])

    task = await tasks.get(task_id)
    assert (task.status, task.attempt, task.starts) == (Status.COMPLETED, 2, 1)


async def test_a_failure_of_the_work_itself_is_not_tried_again(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool, max_attempts=3)

    await leases.accept([make_result(task_id, agent_id, status=ResultStatus.FAILED, exit_code=3)])

    found = await tasks.get(task_id)
    assert (found.status, found.exit_code) == (Status.FAILED, 3)


async def test_a_renewal_keeps_a_lease_and_says_which_are_lost(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool)
    before = (await tasks.get(task_id)).lease_expires_at
    kept, lost = Lease(task_id=task_id, attempt=1), Lease(task_id=uuid4(), attempt=1)

    [(answered, renewed)] = await leases.renew([Renew(renewal_id=uuid4(), agent_id=agent_id, leases=[kept, lost])])

    after = (await tasks.get(task_id)).lease_expires_at
    assert before is not None
    assert after is not None
    assert after > before
    assert (answered, renewed.kept, renewed.lost) == (agent_id, [kept], [lost])


async def test_nobody_renews_the_lease_of_another(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    task_id, _ = await running(tasks, pool)
    lease = Lease(task_id=task_id, attempt=1)

    [(_, renewed)] = await leases.renew([Renew(renewal_id=uuid4(), agent_id=uuid4(), leases=[lease])])

    assert renewed.lost == [lease]


async def test_a_silent_agent_loses_its_task_to_the_next_while_attempts_remain(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool, max_attempts=2)
    await let_leases_run_out(pool)

    assert await leases.reap(limit=10) == 1

    [leased] = await lease_to(pool, task_id)
    assert leased.attempt == 2
    await leases.accept([make_result(task_id, agent_id)])
    assert (await tasks.get(task_id)).status is Status.RUNNING


async def test_a_task_whose_agent_is_lost_fails_with_that_reason_when_it_may_not_start_again(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, _ = await running(tasks, pool)
    await let_leases_run_out(pool)

    await leases.reap(limit=10)

    task = await tasks.get(task_id)
    assert (task.status, task.error_code) == (Status.FAILED, 5002)
    assert "agent lost" in (task.error_message or "")


async def test_two_reapers_at_once_take_each_lost_task_once(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    for _ in range(10):
        await running(tasks, pool)
    await let_leases_run_out(pool)

    taken = await asyncio.gather(*(leases.reap(limit=10) for _ in range(4)))

    assert sum(taken) == 10
    assert sum(event.kind == Kind.TASK_FAILED for event in await events_of(pool)) == 10


async def test_a_live_lease_is_left_alone(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    task_id, _ = await running(tasks, pool)

    assert await leases.reap(limit=10) == 0

    assert (await tasks.get(task_id)).status is Status.RUNNING


async def test_a_result_of_a_stranger_does_not_hide_that_of_the_owner(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task, agent_id = make_new_task(), uuid4()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=agent_id)

    await leases.accept([make_result(task.task_id, uuid4()), make_result(task.task_id, agent_id)])

    assert (await tasks.get(task.task_id)).status is Status.COMPLETED
