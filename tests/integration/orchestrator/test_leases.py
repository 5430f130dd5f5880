"""One agent has a task, and only its result counts."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

from common.lifecycle import Status
from common.messages import Grant, Lease, Renew, ResultStatus
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.leases.service import LeaseService
from orchestrator.outbox import queries as outbox
from orchestrator.tasks.service import TaskService
from tests.factories import make_chunk, make_claim, make_new_task, make_result
from tests.integration.orchestrator.ledger import events_of, kinds_of, let_leases_run_out


async def running(tasks: TaskService, leases: LeaseService, **values: object) -> tuple[UUID, UUID]:
    """Dispatch a task and let an agent claim it; return task and agent."""
    task, agent_id = make_new_task(**values), uuid4()
    await tasks.dispatch([task], by="caller")
    [answer] = await leases.claim([make_claim(task.task_id, agent_id=agent_id)])
    assert answer.grant is not None
    return task.task_id, agent_id


async def test_the_grant_carries_the_work_and_the_ids_of_the_dispatch(tasks: TaskService, leases: LeaseService) -> None:
    task = make_new_task(parameters={"message": "grüße"}, hints={"agent_type": "infra"})
    await tasks.dispatch([task], by="caller")
    claim = make_claim(task.task_id)

    [answer] = await leases.claim([claim])

    assert isinstance(answer.grant, Grant)
    [granted] = answer.grant.tasks
    assert granted.work.parameters == {"message": "grüße"}
    assert (granted.trace_id, granted.request_id) == (task.trace_id, task.request_id)
    assert (granted.attempt, granted.fence, granted.lease_seconds) == (1, 1, 30.0)
    assert granted.claim_id == claim.tasks[0].claim_id


async def test_of_many_agents_that_claim_a_task_at_once_one_gets_it(tasks: TaskService, leases: LeaseService) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")

    answers = await asyncio.gather(*(leases.claim([make_claim(task.task_id)]) for _ in range(20)))

    assert sum(answer[0].grant is not None for answer in answers) == 1
    assert sum(answer[0].refusal is not None for answer in answers) == 19


async def test_of_two_agents_that_claim_in_one_batch_the_first_gets_it(
    tasks: TaskService, leases: LeaseService
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")

    first, second = await leases.claim([make_claim(task.task_id), make_claim(task.task_id)])

    assert first.grant is not None
    assert first.refusal is None
    assert second.grant is None
    assert second.refusal is not None


async def test_a_repeated_claim_gets_the_same_grant_again(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    task, claim = make_new_task(), None
    await tasks.dispatch([task], by="caller")
    claim = make_claim(task.task_id)

    first = await leases.claim([claim])
    again = await leases.claim([claim])

    assert again == first
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]


async def test_a_claim_is_refused_with_the_reason(tasks: TaskService, leases: LeaseService) -> None:
    cancelled, retried = make_new_task(), make_new_task(max_attempts=3)
    await tasks.dispatch([cancelled, retried], by="caller")
    await tasks.cancel(cancelled.task_id, by="caller")
    agent_id = uuid4()
    await leases.claim([make_claim(retried.task_id, agent_id=agent_id)])
    await leases.accept([make_result(retried.task_id, agent_id, status=ResultStatus.FAILED, retryable=True)])

    answers = await leases.claim([make_claim(cancelled.task_id), make_claim(retried.task_id), make_claim(uuid4())])

    reasons = [answer.refusal.tasks[0].reason for answer in answers if answer.refusal is not None]
    assert reasons == ["the task is cancelled", "the ticket is from an earlier attempt", "there is no such task"]


async def test_a_claim_uses_up_the_ticket(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    await running(tasks, leases)

    async with pool.acquire() as db:
        waiting, _ = await outbox.take_tickets(
            db, ["infra"], window=10, ttl=timedelta(seconds=30), ageing=timedelta(minutes=10)
        )
    assert waiting == []


async def test_a_result_ends_the_task_with_everything_that_it_says(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, leases)

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
    task_id, agent_id = await running(tasks, leases)
    result = make_result(task_id, agent_id)

    await leases.accept([result, result])
    await leases.accept([result])

    assert (await kinds_of(pool, task_id)).count(Kind.TASK_COMPLETED) == 1
    assert Kind.TASK_RESULT_REFUSED not in await kinds_of(pool, task_id)


async def test_a_result_of_another_agent_or_an_old_fence_is_noted_and_changes_nothing(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, leases)

    await leases.accept([make_result(task_id, uuid4())])
    await leases.accept([make_result(task_id, agent_id, fence=7)])

    assert (await tasks.get(task_id)).status is Status.RUNNING
    assert (await kinds_of(pool, task_id)).count(Kind.TASK_RESULT_REFUSED) == 2


async def test_a_result_after_a_cancel_changes_nothing(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    task_id, agent_id = await running(tasks, leases)
    await tasks.cancel(task_id, by="caller")

    await leases.accept([make_result(task_id, agent_id)])

    assert (await tasks.get(task_id)).status is Status.CANCELLED
    assert (await kinds_of(pool, task_id))[-1] == Kind.TASK_RESULT_REFUSED


async def test_what_an_agent_stopped_after_a_cancel_is_noted_once_with_its_output(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, leases)
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
        [answer] = await leases.claim([make_claim(task.task_id, agent_id=agent_id, fence=attempt - 1)])
        assert answer.grant is not None
        failed = make_result(
            task.task_id, agent_id, status=ResultStatus.FAILED, retryable=True, attempt=attempt, fence=attempt
        )
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
    tasks: TaskService, leases: LeaseService
) -> None:
    task_id, agent_id = await running(tasks, leases, max_attempts=1)
    await leases.accept(
        [make_result(task_id, agent_id, status=ResultStatus.FAILED, retryable=True, started=False, duration_ms=0)]
    )

    [answer] = await leases.claim([make_claim(task_id, agent_id=agent_id, fence=1)])
    await leases.accept([make_result(task_id, agent_id, attempt=2, fence=2)])

    assert answer.grant is not None
    task = await tasks.get(task_id)
    assert (task.status, task.attempt, task.starts) == (Status.COMPLETED, 2, 1)


async def test_a_failure_of_the_work_itself_is_not_tried_again(tasks: TaskService, leases: LeaseService) -> None:
    task_id, agent_id = await running(tasks, leases, max_attempts=3)

    await leases.accept([make_result(task_id, agent_id, status=ResultStatus.FAILED, exit_code=3)])

    found = await tasks.get(task_id)
    assert (found.status, found.exit_code) == (Status.FAILED, 3)


async def test_a_renewal_keeps_a_lease_and_says_which_are_lost(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, leases)
    before = (await tasks.get(task_id)).lease_expires_at
    kept, lost = Lease(task_id=task_id, fence=1), Lease(task_id=uuid4(), fence=1)

    [(answered, renewed)] = await leases.renew([Renew(renewal_id=uuid4(), agent_id=agent_id, leases=[kept, lost])])

    after = (await tasks.get(task_id)).lease_expires_at
    assert before is not None
    assert after is not None
    assert after > before
    assert (answered, renewed.kept, renewed.lost) == (agent_id, [kept], [lost])


async def test_nobody_renews_the_lease_of_another(tasks: TaskService, leases: LeaseService) -> None:
    task_id, _ = await running(tasks, leases)
    lease = Lease(task_id=task_id, fence=1)

    [(_, renewed)] = await leases.renew([Renew(renewal_id=uuid4(), agent_id=uuid4(), leases=[lease])])

    assert renewed.lost == [lease]


async def test_a_silent_agent_loses_its_task_to_the_next_while_attempts_remain(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, leases, max_attempts=2)
    await let_leases_run_out(pool)

    assert await leases.reap(limit=10) == 1

    [answer] = await leases.claim([make_claim(task_id, fence=1)])
    assert answer.grant is not None
    assert (answer.grant.tasks[0].attempt, answer.grant.tasks[0].fence) == (2, 2)
    await leases.accept([make_result(task_id, agent_id)])
    assert (await tasks.get(task_id)).status is Status.RUNNING


async def test_a_task_whose_agent_is_lost_fails_with_that_reason_when_it_may_not_start_again(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, _ = await running(tasks, leases)
    await let_leases_run_out(pool)

    await leases.reap(limit=10)

    task = await tasks.get(task_id)
    assert (task.status, task.error_code) == (Status.FAILED, 5002)
    assert "agent lost" in (task.error_message or "")


async def test_two_reapers_at_once_take_each_lost_task_once(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    for _ in range(10):
        await running(tasks, leases)
    await let_leases_run_out(pool)

    taken = await asyncio.gather(*(leases.reap(limit=10) for _ in range(4)))

    assert sum(taken) == 10
    assert sum(event.kind == Kind.TASK_FAILED for event in await events_of(pool)) == 10


async def test_a_live_lease_is_left_alone(tasks: TaskService, leases: LeaseService) -> None:
    task_id, _ = await running(tasks, leases)

    assert await leases.reap(limit=10) == 0

    assert (await tasks.get(task_id)).status is Status.RUNNING
