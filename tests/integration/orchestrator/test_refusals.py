"""Work that an agent refuses before anything of it ran goes back untouched, and to another agent first."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from orchestrator.loops.place_tickets import PlaceTickets

from common.broker import topology
from common.broker.memory import MemoryBroker
from common.errors import ErrorCode
from common.lifecycle import Status
from common.messages import ResultStatus, Ticket, WorkResult
from common.protocol import decode
from common.rest.why import BlockerKind
from common.retry import RetryPolicy
from orchestrator.database.pool import Connection, Pool
from orchestrator.events.model import Kind
from orchestrator.jobs import queries as jobs
from orchestrator.jobs.claims import Claims
from orchestrator.jobs.model import Choice, Wanted, Worker
from orchestrator.leases import queries as lease_queries
from orchestrator.leases.rules import REFUSAL_MEMORY, REFUSED_LATELY
from orchestrator.leases.service import LeaseService
from orchestrator.ops import queries as ops
from orchestrator.outbox import queries as outbox
from orchestrator.registry.rules import BreakerPolicy
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from orchestrator.why.service import Failures, WhyService
from tests.factories import make_claim, make_heartbeat, make_new_task, make_result
from tests.integration.ledger import RegisteredLeases, register
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import events_of

OFFLINE = timedelta(seconds=30)
DUE_AT = "SELECT due_at FROM outbox WHERE task_id = $1"
DUE_IN = "SELECT due_at - now() FROM outbox WHERE kind = 'ticket' AND task_id = $1"
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
    return RegisteredLeases(
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
        "fence": attempt,
    }
    return make_result(task_id, agent_id, **{**given, **values})


async def refused_by(leases: LeaseService, task_id: UUID, agent_id: UUID, **values: Any) -> None:
    [answer] = await leases.claim([make_claim(task_id, agent_id=agent_id)])
    assert answer.grant is not None
    await leases.accept([refusal(task_id, agent_id, **values)])


@pytest.mark.parametrize("code", CODES)
async def test_a_refusal_uses_no_attempt_also_of_work_that_may_start_once(
    tasks: TaskService, leases: LeaseService, pool: Pool, code: ErrorCode
) -> None:
    task = make_new_task(idempotent=False, max_attempts=1)
    await tasks.dispatch([task], by="caller")

    await refused_by(leases, task.task_id, uuid4(), error_code=code)
    stored = await tasks.get(task.task_id)
    other = uuid4()
    [answer] = await leases.claim([make_claim(task.task_id, agent_id=other, fence=1)])
    await leases.accept([make_result(task.task_id, other, attempt=2, fence=2)])

    assert (stored.status, stored.starts) == (Status.PENDING, 0)
    assert answer.grant is not None
    assert (await tasks.get(task.task_id)).status is Status.COMPLETED


async def test_an_agent_does_not_get_what_it_refused_just_now_and_gets_it_later(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id, task = uuid4(), make_new_task()
    await tasks.dispatch([task], by="caller")
    await refused_by(leases, task.task_id, agent_id)

    [at_once] = await leases.claim([make_claim(task.task_id, agent_id=agent_id, fence=1)])
    async with pool.acquire() as db:
        due_now = await outbox.best_due(db, "infra", limit=9, work_types=["echo"])
        [waiting] = await ops.pools(db)
        await db.execute("UPDATE attempt SET ended_at = ended_at - $1::interval", REFUSAL_MEMORY)
    [later] = await leases.claim([make_claim(task.task_id, agent_id=agent_id, fence=1)])

    assert at_once.refusal is not None
    assert at_once.refusal.tasks[0].reason == REFUSED_LATELY
    assert due_now == [], "in the pool's queue the same agent would take it again at once"
    assert (waiting.pool, waiting.aim, waiting.retries) == ("infra", "", 1), "it counts as one of its pool"
    assert later.grant is not None


async def test_over_http_too_a_refused_task_goes_to_others_first(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id, task = uuid4(), make_new_task()
    await tasks.dispatch([task], by="caller")
    await refused_by(leases, task.task_id, agent_id)

    async with pool.acquire() as db, db.transaction():
        refused = await lease_queries.refused_lately(db, [agent_id, uuid4()], within=REFUSAL_MEMORY)
        any_of = Choice("infra", None, frozenset({""}))
        own = Choice("infra", None, frozenset({""}), frozenset(refused[agent_id]))
        for_it = await jobs.choose(db, own, 1, besides=())
        for_others = await jobs.choose(db, any_of, 1, besides=())

    assert {agent: set(tasks) for agent, tasks in refused.items()} == {agent_id: {task.task_id}}
    assert (for_it, for_others) == ([], [task.task_id])


async def test_a_worker_over_http_does_not_get_back_what_it_refused_just_now(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id, other, task = uuid4(), uuid4(), make_new_task()
    await tasks.dispatch([task], by="caller")
    await register(pool, [(other, task.task_id)])
    await refused_by(leases, task.task_id, agent_id)
    claims = Claims(pool, leases, since=datetime.now(UTC), grace=LEASE)

    def wanted(agent_id: UUID) -> Wanted:
        return Wanted(Worker(str(agent_id), agent_id), uuid4(), repeatable=True, lease=LEASE)

    assert await claims.give([wanted(agent_id)]) == [None]
    [given] = await claims.give([wanted(other)])
    assert given is not None


async def test_over_http_what_is_refused_while_a_claim_is_answered_goes_to_others_first_too(
    tasks: TaskService, leases: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_id, refused, other = uuid4(), make_new_task(), make_new_task(priority=1)
    await tasks.dispatch([refused, other], by="caller")
    await leases.claim([make_claim(refused.task_id, agent_id=agent_id)])
    choose, refusals = jobs.choose, [refusal(refused.task_id, agent_id)]

    async def after_a_refusal(db: Connection, choice: Choice, count: int, *, besides: Collection[UUID]) -> list[UUID]:
        if refusals:
            await leases.accept([refusals.pop()])
            async with pool.acquire() as relay:
                await outbox.take_tickets(relay, ["infra"], window=9, ttl=LEASE, ageing=LEASE)
        return await choose(db, choice, count, besides=besides)

    monkeypatch.setattr(jobs, "choose", after_a_refusal)
    claims = Claims(pool, leases, since=datetime.now(UTC), grace=LEASE)
    worker = Worker(str(agent_id), agent_id)
    [got] = await claims.give([Wanted(worker, uuid4(), repeatable=True, lease=LEASE)])

    assert got is not None
    assert (got.task_id, refusals) == (other.task_id, [])


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
        await refused_by(leases, task.task_id, agent_id)

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
    await refused_by(leases, task.task_id, refusing, error_code=ErrorCode.POLICY_REFUSED, error_message="Not here.")
    await leases.claim([make_claim(task.task_id, agent_id=running, fence=1)])
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
        [answer] = await leases.claim([make_claim(task.task_id, agent_id=agent_id, fence=number - 1)])
        assert answer.grant is not None
        await leases.accept([refusal(task.task_id, agent_id, attempt=number, error_code=ErrorCode.POLICY_REFUSED)])
        async with pool.acquire() as db:
            await db.execute("UPDATE attempt SET ended_at = ended_at - $1::interval", REFUSAL_MEMORY)

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert agent.tripped_until is None


async def test_a_ticket_that_was_of_no_use_comes_back_no_sooner_than_its_next_attempt(
    tasks: TaskService, pool: Pool
) -> None:
    """The agent that found no use for it may say so late, when the task has run elsewhere and waits."""
    task = make_new_task(idempotent=True, max_attempts=3)
    await tasks.dispatch([task], by="caller")
    patient = RegisteredLeases(pool, lease=LEASE, policy=RetryPolicy(base=timedelta(minutes=10), jitter=0.0))
    agent_id = uuid4()
    await patient.claim([make_claim(task.task_id, agent_id=agent_id)])
    await patient.accept([make_result(task.task_id, agent_id, status=ResultStatus.FAILED, retryable=True)])
    async with pool.acquire() as db:
        due_at = await db.fetchval(DUE_AT, task.task_id)

    await patient.return_tickets([(task.task_id, agent_id)])

    async with pool.acquire() as db:
        assert await db.fetchval(DUE_AT, task.task_id) == due_at


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
    tasks: TaskService, leases: LeaseService, registry: RegistryService, code: ErrorCode
) -> None:
    """Or everybody who may dispatch could stop a pool."""
    agent_id, made = uuid4(), [make_new_task() for _ in range(5)]
    await registry.record([make_heartbeat(agent_id)])
    await tasks.dispatch(made, by="caller")

    for task in made:
        await refused_by(leases, task.task_id, agent_id, error_code=code)

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert agent.tripped_until is None


async def test_an_agent_that_refuses_its_trial_because_of_the_work_may_try_another_task(
    tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool
) -> None:
    agent_id, made = uuid4(), [make_new_task() for _ in range(5)]
    await registry.record([make_heartbeat(agent_id)])
    await tasks.dispatch(made, by="caller")
    for task in made[:3]:
        await refused_by(leases, task.task_id, agent_id)
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET tripped_until = now() - interval '1 second'")
        await db.execute("DELETE FROM outbox WHERE kind = 'order'")

    await refused_by(leases, made[3].task_id, agent_id, error_code=ErrorCode.POLICY_REFUSED)

    [again] = await leases.claim([make_claim(made[4].task_id, agent_id=agent_id)])
    async with pool.acquire() as db:
        orders = await outbox.take_orders(db, limit=9, again_after=LEASE)
    assert again.grant is not None
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
        [answer] = await leases.claim([make_claim(task.task_id, agent_id=agent_id, fence=number - 1)])
        assert answer.grant is not None
        reason = f"{hosts[agent_id]} is full"
        await leases.accept([refusal(task.task_id, agent_id, attempt=number, error_message=reason)])
        async with pool.acquire() as db:
            await db.execute("UPDATE attempt SET ended_at = ended_at - $1::interval", REFUSAL_MEMORY)

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


async def test_a_ticket_that_comes_to_who_refused_its_task_rests_twice_as_long_each_time(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id, task = uuid4(), make_new_task()
    await tasks.dispatch([task], by="caller")
    await refused_by(leases, task.task_id, agent_id)

    due = []
    async with pool.acquire() as db:
        for seconds in (0, 10, 20):
            await db.execute("UPDATE attempt SET ended_at = now() - $1::interval", timedelta(seconds=seconds))
            [answer] = await leases.claim([make_claim(task.task_id, agent_id=agent_id, fence=1)])
            assert answer.refusal is not None
            due.append((await db.fetchval(DUE_IN, task.task_id)).total_seconds())

    assert due == [pytest.approx(rest, abs=1) for rest in (1, 10, 20)]


async def test_what_the_only_agent_with_room_refused_does_not_hold_up_what_is_behind_it(
    tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool, broker: MemoryBroker
) -> None:
    able, busy = uuid4(), uuid4()
    for agent_id, work_type in ((able, "render"), (busy, "render"), (uuid4(), "echo")):
        await registry.record([make_heartbeat(agent_id, work_types=[work_type], slots=1)])
    running, refused, behind = (make_new_task(work_type="render") for _ in range(3))
    await tasks.dispatch([running, refused, behind], by="caller")
    await leases.claim([make_claim(running.task_id, agent_id=busy)])
    await refused_by(leases, refused.task_id, able)
    await broker.declare(topology.own_work_queue(able))
    placing = PlaceTickets(pool, broker, offline_after=OFFLINE, ttl=LEASE, ageing=LEASE)

    while await placing.run_once():
        pass

    async with broker.consume(topology.own_work_queue(able).name, prefetch=9) as consumer:
        [ticket] = await consumer.receive(9)
        await consumer.ack(ticket)
    payload = decode(ticket.body).payload
    assert isinstance(payload, Ticket)
    assert payload.task_id == behind.task_id


async def test_a_grant_that_came_too_late_is_no_refusal(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    agent_id, task = uuid4(), make_new_task()
    await tasks.dispatch([task], by="caller")
    await refused_by(leases, task.task_id, agent_id, error_code=ErrorCode.AGENT_UNAVAILABLE)

    [again] = await leases.claim([make_claim(task.task_id, agent_id=agent_id, fence=1)])

    assert again.grant is not None
