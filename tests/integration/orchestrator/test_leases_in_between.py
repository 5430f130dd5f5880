"""What changes between the read and the write of a lease or a renewal is noticed by the write."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.lifecycle import Status
from common.messages import Lease
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool, transaction
from orchestrator.dispatch.service import Dispatched
from orchestrator.leases import credit_queries, queries, waiting_queries
from orchestrator.leases.giving import Given
from orchestrator.leases.model import Asker
from orchestrator.leases.service import LeaseService
from orchestrator.tasks import queries as task_queries
from orchestrator.tasks.model import NewTask, Task
from orchestrator.tasks.service import TaskService
from tests.eventually import eventually
from tests.factories import make_new_task, make_renewal
from tests.integration.ledger import lease_to, register
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import let_leases_run_out
from tests.integration.orchestrator.on_credit import Agent, Orchestrator, statuses
from tests.integration.orchestrator.test_giving import Unfit, has_another_time, held, is_disabled, is_leaving
from tests.integration.orchestrator.test_keys import let_pass
from tests.integration.orchestrator.test_leases import running
from tests.integration.orchestrator.test_plain import before, waits
from tests.integration.orchestrator.test_shut_out import disable, named

OnTask = Callable[[TaskService, Pool, UUID], Awaitable[object]]
OnLease = Callable[[TaskService, Pool, UUID, UUID], Awaitable[object]]

MINUTE = timedelta(minutes=1)
TRIAL = "failures_in_row = 3, tripped_until = now() - interval '1 second'"
PAUSE = "paused_until = now() + interval '1 hour', paused_by = 'ann'"


async def lose(pool: Pool, task_id: UUID) -> None:
    """Have the lease of a task run out, and the task wait for its next attempt."""
    await let_leases_run_out(pool)
    await LeaseService(pool, lease=LEASE, policy=RetryPolicy()).put_back([task_id], at_once=True)


# Leases: the task changes


async def is_tried_by_another(tasks: TaskService, pool: Pool, task_id: UUID) -> None:
    await lease_to(pool, task_id)
    await lose(pool, task_id)


async def is_held_back_by_a_lower_limit(tasks: TaskService, pool: Pool, task_id: UUID) -> None:
    await tasks.dispatch([limited(1)], by="caller")


async def is_to_rest(tasks: TaskService, pool: Pool, task_id: UUID) -> None:
    async with pool.acquire() as db:
        await waiting_queries.rest(db, {task_id: MINUTE})


async def has_waited_too_long(tasks: TaskService, pool: Pool, task_id: UUID) -> None:
    await let_pass(pool, task_id)


def limited(at_most: int) -> NewTask:
    return make_new_task(
        concurrency_key="pulls", concurrency_limit=at_most, max_attempts=2, expires_after=timedelta(minutes=5)
    )


@pytest.mark.parametrize(
    "change", [is_tried_by_another, is_held_back_by_a_lower_limit, is_to_rest, has_waited_too_long]
)
async def test_a_task_that_may_not_be_given_any_more_when_its_lease_is_written_is_not_leased(
    tasks: TaskService, pool: Pool, monkeypatch: pytest.MonkeyPatch, change: OnTask
) -> None:
    first, task = limited(2), limited(2)
    await tasks.dispatch([first, task], by="caller")
    before(monkeypatch, queries, "lease", lambda: change(tasks, pool, task.task_id))

    assert await lease_to(pool, task.task_id) == []

    assert (await tasks.get(task.task_id)).status is Status.PENDING


# Leases: the agent changes


async def starts_anew(at: Orchestrator, pool: Pool, agent: Agent) -> None:
    agent.session, agent.number = uuid4(), 0
    await at.hears(agent)


async def is_given_other_work(at: Orchestrator, pool: Pool, agent: Agent) -> None:
    other = Orchestrator(pool)
    await other.hears(agent)
    assert len((await other.dispatch(make_new_task())).leased) == 1


BEFORE_ITS_LEASE: dict[str, Unfit] = {
    "starts anew": starts_anew,
    "is given other work": is_given_other_work,
    "leaves": is_leaving,
    "is disabled": is_disabled,
    "has another time": has_another_time,
    "is paused": held(PAUSE),
    "is drained": held("draining = true"),
    "is tripped": held("tripped_until = now() + interval '1 hour'"),
    "is paused on trial": held(f"{TRIAL}, {PAUSE}"),
}


@pytest.mark.parametrize("change", list(BEFORE_ITS_LEASE.values()), ids=list(BEFORE_ITS_LEASE))
async def test_an_agent_that_may_not_have_work_any_more_when_its_lease_is_written_gets_none(
    at: Orchestrator, pool: Pool, monkeypatch: pytest.MonkeyPatch, change: Unfit
) -> None:
    agent, task = Agent(slots=1), make_new_task()
    agent.agent_id = await named(pool, "web-1")
    await at.hears(agent)
    await at.tasks.dispatch([task], by="caller")
    before(monkeypatch, queries, "lease", lambda: change(at, pool, agent))

    assert (await at.giving.by_credit()).leased == []

    assert await statuses(at, task) == [Status.PENDING]


async def test_an_agent_that_is_on_trial_when_two_leases_are_written_gets_neither(
    at: Orchestrator, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, two = Agent(slots=2), [make_new_task(), make_new_task()]
    await at.hears(agent)
    await at.tasks.dispatch(two, by="caller")
    before(monkeypatch, queries, "lease", lambda: held(TRIAL)(at, pool, agent))

    assert (await at.giving.by_credit()).leased == []

    assert await statuses(at, *two) == [Status.PENDING] * 2


# Leases: two are written at once


async def asking(pool: Pool, *, room: int) -> Asker:
    """Register an agent that takes so much work."""
    agent_id = uuid4()
    return Asker(agent_id, "infra", await register(pool, agent_id, room=room), room, LEASE)


async def waiting(tasks: TaskService) -> Task:
    task = make_new_task(max_attempts=2)
    await tasks.dispatch([task], by="caller")
    return await tasks.get(task.task_id)


async def leased(pool: Pool, task: Task, asker: Asker) -> set[UUID]:
    async with pool.acquire() as db:
        return (await queries.lease(db, [(task, asker)], [], trial=MINUTE))[0]


async def test_of_two_leases_of_a_task_that_are_written_at_once_one_counts(tasks: TaskService, pool: Pool) -> None:
    task, one, other = await waiting(tasks), await asking(pool, room=1), await asking(pool, room=1)

    async with transaction(pool) as db:
        first, _ = await queries.lease(db, [(task, one)], [], trial=MINUTE)
        second = asyncio.create_task(leased(pool, task, other))
        await eventually(lambda: waits(pool))

    assert (first, await second) == ({task.task_id}, set())
    now = await tasks.get(task.task_id)
    assert (now.agent_id, now.attempt) == (one.agent_id, 1)


@pytest.mark.parametrize("on_trial", [False, True], ids=["room for one", "on trial"])
async def test_of_two_leases_to_an_agent_that_are_written_at_once_one_counts(
    tasks: TaskService, pool: Pool, on_trial: bool
) -> None:
    one, other, asker = await waiting(tasks), await waiting(tasks), await asking(pool, room=2 if on_trial else 1)
    if on_trial:
        async with pool.acquire() as db:
            await db.execute(f"UPDATE agent SET {TRIAL}")

    async with transaction(pool) as db:
        first, _ = await queries.lease(db, [(one, asker)], [], trial=MINUTE)
        second = asyncio.create_task(leased(pool, other, asker))
        await eventually(lambda: waits(pool))

    assert (first, await second) == ({one.task_id}, set())
    assert (await tasks.get(other.task_id)).status is Status.PENDING


async def test_new_work_waits_when_its_agent_is_given_other_work_while_it_is_stored(
    at: Orchestrator, pool: Pool
) -> None:
    agent, new = Agent(slots=1), make_new_task()
    await at.hears(agent)
    old, asker = await waiting(at.tasks), Asker(agent.agent_id, "infra", agent.session, 1, LEASE)

    async with transaction(pool) as db:
        first, _ = await queries.lease(db, [(old, asker)], [], trial=MINUTE)
        storing = asyncio.create_task(at.dispatch(new))
        await eventually(lambda: waits(pool))

    assert first == {old.task_id}
    assert (await storing).leased == []
    assert await statuses(at, new) == [Status.PENDING]


# For how long a lease holds: its agent counts it from the newest message of which the grant says that it was seen.

LOCKS = {
    "new work": "SELECT FROM agent WHERE agent_id = $1 FOR UPDATE",
    "work that waits": "SELECT pg_advisory_xact_lock(hashtext('chiffon.give')), $1::uuid",
}
LEASE_END = "SELECT lease_expires_at FROM task WHERE task_id = $1"


@pytest.mark.parametrize("work", LOCKS)
async def test_a_lease_that_was_long_in_the_making_holds_as_long_as_its_agent_takes_it_to_hold(
    at: Orchestrator, pool: Pool, work: str
) -> None:
    agent, task = Agent(slots=1), make_new_task()
    if work == "work that waits":
        await at.dispatch(task)
    await at.hears(agent)

    async with transaction(pool) as db:
        await db.execute(LOCKS[work], agent.agent_id)
        going: Coroutine[Any, Any, Dispatched | Given] = (
            at.dispatch(task) if work == "new work" else at.giving.by_credit()
        )
        leasing = asyncio.create_task(going)
        await eventually(lambda: waits(pool))
        await credit_queries.take_in(db, {agent.agent_id: agent.credit()})
        taken_in: datetime = await db.fetchval("SELECT clock_timestamp()")
    [leased] = (await leasing).leased
    async with pool.acquire() as db:
        end: datetime = await db.fetchval(LEASE_END, task.task_id)

    assert (leased.task.task_id, leased.credit) == (task.task_id, agent.number)
    assert end >= taken_in + LEASE


# Renewals


async def is_cancelled(tasks: TaskService, pool: Pool, task_id: UUID, agent_id: UUID) -> None:
    await tasks.cancel(task_id, by="caller")


async def is_lost(tasks: TaskService, pool: Pool, task_id: UUID, agent_id: UUID) -> None:
    await lose(pool, task_id)


async def is_lost_and_given_to_it_again(tasks: TaskService, pool: Pool, task_id: UUID, agent_id: UUID) -> None:
    await lose(pool, task_id)
    await lease_to(pool, task_id, agent_id=agent_id)


async def is_shut_out(tasks: TaskService, pool: Pool, task_id: UUID, agent_id: UUID) -> None:
    await disable(pool, agent_id)


@pytest.mark.parametrize("change", [is_cancelled, is_lost, is_lost_and_given_to_it_again, is_shut_out])
async def test_a_lease_that_is_over_when_its_renewal_is_written_is_lost(
    tasks: TaskService, leases: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch, change: OnLease
) -> None:
    task, agent_id = make_new_task(max_attempts=2), await named(pool, "web-1")
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=agent_id)
    until = []

    async def happens() -> None:
        await change(tasks, pool, task.task_id, agent_id)
        until.append((await tasks.get(task.task_id)).lease_expires_at)

    before(monkeypatch, queries, "renew", happens)

    [(_, renewed)] = await leases.renew([make_renewal(task.task_id, agent_id)])

    assert (renewed.kept, renewed.lost) == ([], [Lease(task_id=task.task_id, attempt=1)])
    assert until == [(await tasks.get(task.task_id)).lease_expires_at]


async def test_a_renewal_that_waits_for_a_cancel_renews_nothing(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool)

    async with transaction(pool) as db:
        await task_queries.cancel(db, [task_id])
        renewing = asyncio.create_task(leases.renew([make_renewal(task_id, agent_id)]))
        await eventually(lambda: waits(pool))

    [(_, renewed)] = await renewing
    assert (renewed.kept, renewed.lost) == ([], [Lease(task_id=task_id, attempt=1)])
    assert (await tasks.get(task_id)).lease_expires_at is None
