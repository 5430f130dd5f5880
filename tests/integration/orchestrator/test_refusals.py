"""Work that an agent refuses before anything of it ran goes back untouched, and to another agent first."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.errors import ErrorCode
from common.lifecycle import Status
from common.messages import ResultStatus, WorkResult
from common.rest.why import BlockerKind
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.jobs import queries as jobs
from orchestrator.jobs.claims import Claims
from orchestrator.jobs.model import Wanted, Worker
from orchestrator.leases.rules import REFUSAL_MEMORY, SHORTEST_REST
from orchestrator.leases.service import LeaseService
from orchestrator.ops import queries as ops
from orchestrator.outbox import queries as outbox
from orchestrator.registry.rules import BreakerPolicy
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from orchestrator.why.service import Failures, WhyService
from tests.factories import make_heartbeat, make_new_task, make_result
from tests.integration.ledger import lease_to, register
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import events_of
from tests.integration.orchestrator.on_credit import Agent, Orchestrator, gets

OFFLINE = timedelta(seconds=30)
RESTS = "SELECT not_before - now() FROM task WHERE task_id = $1"
CODES = [
    ErrorCode.AUTHENTICATION_FAILED,
    ErrorCode.RESOURCE_LIMIT,
    ErrorCode.UNSUPPORTED_WORK_TYPE,
    ErrorCode.POLICY_REFUSED,
    ErrorCode.CONFINEMENT_NOT_POSSIBLE,
]


@pytest.fixture
def leases(pool: Pool) -> LeaseService:
    """Three refusals in a row trip an agent."""
    return LeaseService(
        pool,
        lease=LEASE,
        policy=RetryPolicy(base=timedelta(0)),
        breaker=BreakerPolicy(failures=3, pause=timedelta(minutes=1)),
    )


def refusal(task_id: UUID, agent_id: UUID, *, attempt: int = 1, **values: Any) -> WorkResult:
    given: dict[str, Any] = {
        "status": ResultStatus.FAILED,
        "error_code": ErrorCode.RESOURCE_LIMIT,
        "error_message": "The host failed: no space left on device.",
        "started": False,
        "attempt": attempt,
    }
    return make_result(task_id, agent_id, **{**given, **values})


async def refused_by(leases: LeaseService, pool: Pool, task_id: UUID, agent_id: UUID, **values: Any) -> None:
    [_] = await lease_to(pool, task_id, agent_id=agent_id)
    await leases.accept([refusal(task_id, agent_id, **values)])


async def let_refusals_pass(pool: Pool) -> None:
    """Move every refusal, and the rest of every task, into the past."""
    async with pool.acquire() as db:
        await db.execute("UPDATE earlier_attempt SET ended_at = ended_at - $1::interval", REFUSAL_MEMORY)
        await db.execute("UPDATE task SET not_before = NULL")


@pytest.mark.parametrize("code", CODES)
async def test_a_refusal_uses_no_attempt_also_of_work_that_may_start_once(
    tasks: TaskService, leases: LeaseService, pool: Pool, code: ErrorCode
) -> None:
    task = make_new_task(idempotent=False, max_attempts=1)
    await tasks.dispatch([task], by="caller")

    await refused_by(leases, pool, task.task_id, uuid4(), error_code=code)
    stored = await tasks.get(task.task_id)
    other = uuid4()
    [_] = await lease_to(pool, task.task_id, agent_id=other)
    await leases.accept([make_result(task.task_id, other, attempt=2)])

    assert (stored.status, stored.starts) == (Status.PENDING, 0)
    assert (await tasks.get(task.task_id)).status is Status.COMPLETED


async def test_an_agent_does_not_get_what_it_refused_just_now_and_gets_it_later(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id, task = uuid4(), make_new_task()
    await tasks.dispatch([task], by="caller")
    await refused_by(leases, pool, task.task_id, agent_id)

    at_once = await gets(pool, agent_id)
    async with pool.acquire() as db:
        [waiting] = await ops.pools(db)
    await let_refusals_pass(pool)
    later = await gets(pool, agent_id)

    assert (at_once, later) == ([], [task.task_id])
    assert (waiting.pool, waiting.aim, waiting.retries) == ("infra", "", 1), "it counts as one of its pool"


async def test_a_worker_over_http_does_not_get_back_what_it_refused_just_now(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    one, other, task = await worker(pool), await worker(pool), make_new_task()
    await tasks.dispatch([task], by="caller")
    await refused_by(leases, pool, task.task_id, one.agent_id)
    claims = claims_of(pool, leases)

    assert await claims.give([wanted(one)]) == [None]
    [given] = await claims.give([wanted(other)])
    assert given is not None


async def test_over_http_too_a_refused_task_goes_to_others_first_and_holds_up_no_others(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    one, other = await worker(pool), await worker(pool)
    refused, behind = [make_new_task(priority=4) for _ in range(3)], make_new_task()
    await tasks.dispatch([*refused, behind], by="caller")
    for task in refused:
        await refused_by(leases, pool, task.task_id, one.agent_id, error_code=ErrorCode.POLICY_REFUSED)
    claims = claims_of(pool, leases)

    [of_one] = await claims.give([wanted(one)])
    [of_other] = await claims.give([wanted(other)])

    assert of_one is not None
    assert of_one.task_id == behind.task_id
    assert of_other is not None
    assert of_other.task_id == refused[0].task_id


async def worker(pool: Pool) -> Worker:
    """Register somebody who takes work over HTTP."""
    agent_id = uuid4()
    await register(pool, agent_id)
    async with pool.acquire() as db:
        await jobs.name(db, Worker(str(agent_id), agent_id))
    return Worker(str(agent_id), agent_id)


def claims_of(pool: Pool, leases: LeaseService) -> Claims:
    return Claims(pool, leases, Orchestrator(pool).giving, since=datetime.now(UTC), grace=LEASE)


def wanted(worker: Worker) -> Wanted:
    return Wanted(worker, uuid4(), repeatable=True, lease=LEASE)


async def test_an_agent_that_keeps_refusing_trips_and_everybody_is_told_why(
    tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool
) -> None:
    async def well() -> Failures:
        return Failures(None, None)

    agent_id = uuid4()
    await registry.record([make_heartbeat(agent_id, hostname="web")])
    made = [make_new_task() for _ in range(3)]
    await tasks.dispatch(made, by="caller")

    for task in made:
        await refused_by(leases, pool, task.task_id, agent_id)

    [agent] = await registry.list_agents(agent_type=None, status=None)
    async with pool.acquire() as db:
        [order] = await outbox.take_orders(db, limit=9, again_after=LEASE)
    blockers = (await WhyService(pool, offline_after=OFFLINE, failures=well).explain(made[0].task_id)).blockers
    told = {blocker.kind: blocker.message for blocker in blockers}
    [tripped] = [event for event in await events_of(pool) if event.kind == Kind.AGENT_TRIPPED]
    assert agent.tripped_until is not None
    assert "no space left" in (agent.trip_reason or "")
    assert "no space left" in order.body["payload"]["order"]["note"], "the agent logs it when it pauses"
    assert "no space left" in tripped.data["reason"]
    assert "no space left" in told[BlockerKind.AGENT_TRIPPED]
    assert f"by web ({agent_id}) 1 time" in told[BlockerKind.REFUSED]


async def test_why_names_the_agent_that_refused_and_not_the_one_that_ran_the_task_after_it(
    tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool
) -> None:
    async def well() -> Failures:
        return Failures(None, None)

    refusing, running, task = uuid4(), uuid4(), make_new_task(max_attempts=2)
    await registry.record([make_heartbeat(refusing, hostname="web"), make_heartbeat(running, hostname="db")])
    await tasks.dispatch([task], by="caller")
    await refused_by(
        leases, pool, task.task_id, refusing, error_code=ErrorCode.POLICY_REFUSED, error_message="Not here."
    )
    [_] = await lease_to(pool, task.task_id, agent_id=running)
    timed_out = {"error_code": ErrorCode.TIMEOUT, "error_message": "It ran too long.", "retryable": True}
    await leases.accept([refusal(task.task_id, running, attempt=2, started=True, **timed_out)])

    blockers = (await WhyService(pool, offline_after=OFFLINE, failures=well).explain(task.task_id)).blockers

    [told] = [blocker.message for blocker in blockers if blocker.kind is BlockerKind.REFUSED]
    assert told.startswith(f"Before anything of it ran it was given back 1 time: by web ({refusing}) 1 time, last at ")
    assert told.endswith(": Not here. Other agents go first.")


async def test_one_task_that_is_refused_again_and_again_does_not_trip_an_agent(
    tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool
) -> None:
    """Work that every host refuses must not take the whole fleet out of work."""
    agent_id, task = uuid4(), make_new_task()
    await registry.record([make_heartbeat(agent_id)])
    await tasks.dispatch([task], by="caller")

    for number in range(1, 6):
        [_] = await lease_to(pool, task.task_id, agent_id=agent_id)
        await leases.accept([refusal(task.task_id, agent_id, attempt=number, error_code=ErrorCode.POLICY_REFUSED)])
        await let_refusals_pass(pool)

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert agent.tripped_until is None


OF_THE_WORK = [
    ErrorCode.POLICY_REFUSED,
    ErrorCode.INVALID_REQUEST,
    ErrorCode.UNSUPPORTED_WORK_TYPE,
    ErrorCode.SECRET_NOT_AVAILABLE,
    ErrorCode.CONFINEMENT_NOT_POSSIBLE,
    ErrorCode.APPROVAL_MISMATCH,
    ErrorCode.INTERNAL,
]


@pytest.mark.parametrize("code", OF_THE_WORK, ids=lambda code: code.name)
async def test_different_tasks_that_an_agent_refuses_because_of_the_work_do_not_trip_it(
    tasks: TaskService, leases: LeaseService, registry: RegistryService, code: ErrorCode, pool: Pool
) -> None:
    """Or everybody who may dispatch could stop a pool."""
    agent_id, made = uuid4(), [make_new_task() for _ in range(5)]
    await registry.record([make_heartbeat(agent_id)])
    await tasks.dispatch(made, by="caller")

    for task in made:
        await refused_by(leases, pool, task.task_id, agent_id, error_code=code)

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert agent.tripped_until is None


async def test_an_agent_that_refuses_its_trial_because_of_the_work_may_try_another_task(
    tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool
) -> None:
    agent_id, made = uuid4(), [make_new_task() for _ in range(5)]
    await registry.record([make_heartbeat(agent_id)])
    await tasks.dispatch(made, by="caller")
    for task in made[:3]:
        await refused_by(leases, pool, task.task_id, agent_id)
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET tripped_until = now() - interval '1 second'")
        await db.execute("DELETE FROM outbox")

    await refused_by(leases, pool, made[3].task_id, agent_id, error_code=ErrorCode.POLICY_REFUSED)

    again = await gets(pool, agent_id)
    async with pool.acquire() as db:
        orders = await outbox.take_orders(db, limit=9, again_after=LEASE)
    assert again == [made[4].task_id]
    assert [order.body["payload"]["order"]["action"] for order in orders] == ["resume"], (
        "it may have been told to pause"
    )


async def test_work_that_every_host_refuses_is_queued_still_after_two_hundred_refusals_and_why_names_each(
    tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool
) -> None:
    async def well() -> Failures:
        return Failures(None, None)

    hosts = {uuid4(): name for name in ("web", "db")}
    await registry.record([make_heartbeat(agent_id, hostname=name) for agent_id, name in hosts.items()])
    task = make_new_task(idempotent=False, max_attempts=1)
    await tasks.dispatch([task], by="caller")

    for number in range(1, 201):
        agent_id = list(hosts)[number % 2]
        [_] = await lease_to(pool, task.task_id, agent_id=agent_id)
        reason = f"{hosts[agent_id]} is full"
        await leases.accept([refusal(task.task_id, agent_id, attempt=number, error_message=reason)])
        await let_refusals_pass(pool)

    stored = await tasks.get(task.task_id)
    explained = await WhyService(pool, offline_after=OFFLINE, failures=well).explain(task.task_id)
    [told] = [blocker for blocker in explained.blockers if blocker.kind is BlockerKind.REFUSED]
    assert (stored.status, stored.attempt, stored.starts) == (Status.PENDING, 200, 0)
    assert "it was given back 200 times: " in told.message
    assert all(f"by {name} ({agent_id}) 100 times" in told.message for agent_id, name in hosts.items())
    assert all(f": {name} is full" in told.message for name in hosts.values())
    assert {agent.agent_id for agent in told.agents or ()} == set(hosts)
    await tasks.cancel(task.task_id, by="caller")
    assert (await tasks.get(task.task_id)).status is Status.CANCELLED


async def test_a_task_for_which_there_is_only_who_refused_it_rests_twice_as_long_each_time(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id, task = uuid4(), make_new_task()
    await tasks.dispatch([task], by="caller")
    await refused_by(leases, pool, task.task_id, agent_id)

    rests = []
    async with pool.acquire() as db:
        for seconds in (0, 10, 20):
            await db.execute("UPDATE earlier_attempt SET ended_at = now() - $1::interval", timedelta(seconds=seconds))
            await db.execute("UPDATE task SET not_before = NULL")
            assert await gets(pool, agent_id) == []
            rests.append((await db.fetchval(RESTS, task.task_id)).total_seconds())

    assert rests == [pytest.approx(rest, abs=1) for rest in (1, 10, 20)]


async def test_what_the_only_agent_with_room_refused_does_not_hold_up_what_is_behind_it(
    leases: LeaseService, pool: Pool
) -> None:
    one, able, busy = Orchestrator(pool), Agent(work_types=["render"]), Agent(slots=0, work_types=["render"])
    await one.hears(able, busy, Agent(work_types=["echo"]))
    refused = [make_new_task(work_type="render", priority=4) for _ in range(20)]
    behind = [make_new_task(work_type="render") for _ in range(2)]
    await one.tasks.dispatch([*refused, *behind], by="caller")
    for task in refused:
        await refused_by(leases, pool, task.task_id, able.agent_id, error_code=ErrorCode.POLICY_REFUSED)
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET credit_limit = granted + 2 WHERE agent_id = $1", able.agent_id)

    assert await one.give() == {task.task_id: able.agent_id for task in behind}


async def test_a_task_that_rests_goes_to_another_agent_soon(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    refusing, other, task = uuid4(), uuid4(), make_new_task()
    await tasks.dispatch([task], by="caller")
    await refused_by(leases, pool, task.task_id, refusing)
    assert await gets(pool, refusing) == []
    await register(pool, other)
    async with pool.acquire() as db:
        await db.execute("UPDATE task SET not_before = not_before - $1::interval", SHORTEST_REST)

    assert await gets(pool, other) == [task.task_id]


async def test_a_grant_that_came_too_late_is_no_refusal(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    agent_id, task = uuid4(), make_new_task()
    await tasks.dispatch([task], by="caller")
    await refused_by(leases, pool, task.task_id, agent_id, error_code=ErrorCode.AGENT_UNAVAILABLE)

    assert await gets(pool, agent_id) == [task.task_id]
