"""A failed attempt is followed by another when it may be, not before its time, and no more often than was asked for."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from common.errors import ErrorCode
from common.lifecycle import Status
from common.messages import ResultStatus
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool
from orchestrator.leases.service import LeaseService
from orchestrator.tasks.model import Task
from orchestrator.tasks.service import TaskService
from tests.factories import make_new_task, make_result
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import let_leases_run_out
from tests.integration.orchestrator.on_credit import Agent, Orchestrator, gets
from tests.integration.orchestrator.test_keys import let_pass
from tests.integration.orchestrator.test_leases import running
from tests.integration.orchestrator.test_refusals import let_refusals_pass, refused_by

MINUTE = timedelta(minutes=1)
FAILED = ResultStatus.FAILED


@pytest.fixture
def patient(pool: Pool) -> LeaseService:
    """Leases whose tasks wait a minute before they are tried again, exactly."""
    return LeaseService(pool, lease=LEASE, policy=RetryPolicy(base=MINUTE, jitter=0))


async def runs_again(pool: Pool, tasks: TaskService, task_id: UUID) -> tuple[UUID, Task]:
    """Lease a task that waits; return its agent and the task as it runs."""
    agent_id = uuid4()
    [_] = await lease_to(pool, task_id, agent_id=agent_id)
    return agent_id, await tasks.get(task_id)


@pytest.mark.parametrize("end", ["failed", "lost"])
async def test_a_task_is_not_given_again_before_its_wait_is_over(
    tasks: TaskService, patient: LeaseService, at: Orchestrator, pool: Pool, end: str
) -> None:
    task_id, agent_id = await running(tasks, pool, max_attempts=2)
    if end == "lost":
        await let_leases_run_out(pool)
        await patient.reap(limit=1)
    else:
        await patient.accept([make_result(task_id, agent_id, status=FAILED, retryable=True)])
    await at.hears(Agent(slots=4))

    assert await at.give() == {}
    assert await lease_to(pool, task_id) == []

    task = await tasks.get(task_id)
    assert task.status is Status.PENDING
    assert task.not_before is not None
    assert task.not_before - datetime.now(UTC) == pytest.approx(MINUTE, abs=timedelta(seconds=10))


async def test_a_worker_that_asks_for_work_gets_what_another_lost_without_its_wait(
    tasks: TaskService, patient: LeaseService, pool: Pool
) -> None:
    task_id, _ = await running(tasks, pool, max_attempts=2)
    await let_leases_run_out(pool)

    assert await patient.put_back([task_id], at_once=True) == 1

    assert len(await lease_to(pool, task_id)) == 1


@pytest.mark.parametrize("end", ["failed", "lost"])
async def test_an_attempt_that_was_handed_back_untouched_leaves_as_many_starts_as_before(
    tasks: TaskService, leases: LeaseService, pool: Pool, end: str
) -> None:
    task_id, agent_id = await running(tasks, pool, max_attempts=2)
    await leases.accept([make_result(task_id, agent_id, status=FAILED, started=False)])

    async def ends() -> Task:
        agent_id, task = await runs_again(pool, tasks, task_id)
        if end == "lost":
            await let_leases_run_out(pool)
            await leases.reap(limit=1)
        else:
            await leases.accept([make_result(task_id, agent_id, attempt=task.attempt, status=FAILED, retryable=True)])
        return await tasks.get(task_id)

    first, second = await ends(), await ends()

    assert (first.status, first.attempt, first.starts) == (Status.PENDING, 2, 1)
    assert (second.status, second.attempt, second.starts) == (Status.FAILED, 3, 2)


async def test_an_agent_whose_attempt_failed_has_not_refused_the_work(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task, agent_id = make_new_task(max_attempts=2), uuid4()
    await tasks.dispatch([task], by="caller")
    await refused_by(leases, pool, task.task_id, uuid4(), error_code=ErrorCode.POLICY_REFUSED)
    await lease_to(pool, task.task_id, agent_id=agent_id)
    failed = {"status": FAILED, "error_code": ErrorCode.TIMEOUT, "retryable": True, "attempt": 2}
    await leases.accept([make_result(task.task_id, agent_id, **failed)])

    assert await gets(pool, agent_id) == [task.task_id]


async def test_a_task_that_an_agent_refuses_again_waits_and_one_that_another_refuses_goes_on(
    tasks: TaskService, patient: LeaseService, pool: Pool
) -> None:
    one, other, task = uuid4(), uuid4(), make_new_task()
    await tasks.dispatch([task], by="caller")

    waits = []
    for number, agent_id in enumerate((one, other, one), 1):
        await refused_by(patient, pool, task.task_id, agent_id, attempt=number)
        waits.append((await tasks.get(task.task_id)).not_before is not None)
        if number < 3:
            await let_refusals_pass(pool)

    assert waits == [False, False, True]


async def test_a_task_that_comes_too_late_to_its_agents_again_and_again_waits(
    tasks: TaskService, patient: LeaseService, pool: Pool
) -> None:
    """Or it would go round as fast as it can be sent."""
    task = make_new_task()
    await tasks.dispatch([task], by="caller")

    waits = []
    for number in (1, 2):
        late = {"attempt": number, "error_code": ErrorCode.AGENT_UNAVAILABLE}
        await refused_by(patient, pool, task.task_id, uuid4(), **late)
        waits.append((await tasks.get(task.task_id)).not_before is not None)

    assert waits == [False, True]


async def test_a_retry_that_has_waited_too_long_is_cancelled(
    tasks: TaskService, patient: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool, max_attempts=2, expires_after=MINUTE)
    await patient.accept([make_result(task_id, agent_id, status=FAILED, retryable=True)])
    assert await tasks.expire(limit=10) == 0
    await let_pass(pool, task_id)

    assert await tasks.expire(limit=10) == 1

    task = await tasks.get(task_id)
    assert (task.status, task.error_code) == (Status.CANCELLED, ErrorCode.TIMEOUT)


async def test_a_cancelled_task_is_not_tried_again(tasks: TaskService, patient: LeaseService, pool: Pool) -> None:
    waits, agent_id = await running(tasks, pool, max_attempts=2)
    runs, other = await running(tasks, pool, max_attempts=2)
    await patient.accept([make_result(waits, agent_id, status=FAILED, retryable=True)])
    for task_id in (waits, runs):
        await tasks.cancel(task_id, by="caller")

    await patient.accept([make_result(runs, other, status=FAILED, retryable=True)])

    assert [(await tasks.get(task_id)).status for task_id in (waits, runs)] == [Status.CANCELLED] * 2
    assert await lease_to(pool, waits) == []
