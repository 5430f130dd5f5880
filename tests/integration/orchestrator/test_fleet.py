"""Agents are held back from work by people and by the circuit breaker, on a real ledger."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.errors import InvalidField
from common.lifecycle import Status
from common.loop import Wake
from common.messages import AgentStatus, ResultStatus
from common.orders import Drain, Pause, Resume
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.leases.service import LeaseService
from orchestrator.outbox import queries as outbox
from orchestrator.registry.fleet import AgentNotFound, AgentWorks, FleetService
from orchestrator.registry.rules import BreakerPolicy
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from tests.factories import make_heartbeat, make_new_task, make_renewal, make_result
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.ledger import events_of, let_leases_run_out
from tests.integration.orchestrator.on_credit import gets
from tests.integration.orchestrator.test_refusals import claims_of, wanted, worker

OFFLINE_AFTER = timedelta(seconds=30)
MINUTES = timedelta(minutes=5)
BREAKER = BreakerPolicy(failures=3, pause=timedelta(minutes=1))
RESTARTED = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def giver() -> Wake:
    return Wake()


@pytest.fixture
def fleet(pool: Pool, giver: Wake) -> FleetService:
    return FleetService(pool, giver, offline_after=OFFLINE_AFTER)


@pytest.fixture
def leases(pool: Pool) -> LeaseService:
    """Three failures in a row trip an agent for a minute."""
    return LeaseService(
        pool,
        lease=timedelta(seconds=30),
        policy=RetryPolicy(base=timedelta(0)),
        breaker=BREAKER,
    )


async def registered(registry: RegistryService, **values: Any) -> UUID:
    heartbeat = make_heartbeat(**values)
    await registry.record([heartbeat])
    return heartbeat.agent_id


async def orders_to(pool: Pool, agent_id: UUID) -> list[dict[str, Any]]:
    """Take what waits to be told to an agent."""
    async with pool.acquire() as db:
        waiting = await outbox.take_orders(db, limit=100, again_after=timedelta(hours=1))
    assert {order.agent_id for order in waiting} <= {agent_id}
    return [order.body["payload"]["order"] for order in waiting]


async def pending(tasks: TaskService, count: int = 1, **values: Any) -> list[UUID]:
    new = [make_new_task(**values) for _ in range(count)]
    await tasks.dispatch(new, by="caller")
    return [task.task_id for task in new]


async def fails(
    tasks: TaskService, leases: LeaseService, pool: Pool, agent_id: UUID, error_code: int | None, **task: Any
) -> UUID:
    """Let a task fail on an agent."""
    [task_id] = await pending(tasks, **task)
    [_] = await lease_to(pool, task_id, agent_id=agent_id)
    await leases.accept([make_result(task_id, agent_id, status=ResultStatus.FAILED, error_code=error_code)])
    return task_id


async def is_given(pool: Pool, task_id: UUID, agent_id: UUID) -> bool:
    """Return whether an agent that asks for one task is given this one, and by the statement that leases too."""
    given = await gets(pool, agent_id, breaker=BREAKER)
    if not given:
        assert await lease_to(pool, task_id, agent_id=agent_id) == [], "whoever chose it"
    return given == [task_id]


async def let_trips_end(pool: Pool) -> None:
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET tripped_until = now() - interval '1 second'")


# Pause


async def test_a_paused_agent_is_listed_as_such_and_told_in_the_same_breath(
    fleet: FleetService, registry: RegistryService, pool: Pool, giver: Wake
) -> None:
    agent_id = await registered(registry)

    agent = await fleet.pause(agent_id, until=MINUTES, note="disk is full", by="ann")

    [listed] = await registry.list_agents(agent_type=None, status=None)
    assert listed == agent
    assert agent.paused_until is not None
    assert (agent.paused_by, agent.pause_note) == ("ann", "disk is full")
    event = (await events_of(pool))[-1]
    assert (event.kind, event.actor, event.agent_id) == (Kind.AGENT_PAUSED, "ann", agent_id)
    assert event.data == {"until": agent.paused_until.isoformat(), "note": "disk is full"}
    [order] = await orders_to(pool, agent_id)
    assert Pause.model_validate(order) == Pause(until=agent.paused_until, note="disk is full")
    async with asyncio.timeout(1):
        await giver.rung()


async def test_a_paused_agent_gets_nothing_and_others_get_the_task_at_once(
    fleet: FleetService, registry: RegistryService, tasks: TaskService, pool: Pool
) -> None:
    paused, other = await registered(registry), await registered(registry)
    [task_id] = await pending(tasks)
    await fleet.pause(paused, until=MINUTES, note="disk is full", by="ann")

    assert not await is_given(pool, task_id, paused)
    assert await is_given(pool, task_id, other)


async def test_a_paused_worker_over_http_takes_no_task_in_the_turn_of_another(
    fleet: FleetService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    paused, free = await worker(pool), await worker(pool)
    [task_id] = await pending(tasks)
    await fleet.pause(paused.agent_id, until=MINUTES, note="disk is full", by="ann")

    given = await claims_of(pool, leases).give([wanted(paused), wanted(free)])

    assert [None if task is None else task.task_id for task in given] == [None, task_id]


async def test_what_a_paused_agent_runs_goes_on(
    fleet: FleetService, registry: RegistryService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id = await registered(registry)
    [task_id] = await pending(tasks)
    await lease_to(pool, task_id, agent_id=agent_id)
    await fleet.pause(agent_id, until=MINUTES, note="", by="ann")

    [(_, renewed)] = await leases.renew([make_renewal(task_id, agent_id)])
    await leases.accept([make_result(task_id, agent_id)])

    assert (len(renewed.kept), renewed.lost) == (1, [])
    assert (await tasks.get(task_id)).status is Status.COMPLETED


async def test_a_pause_ends_by_itself(
    fleet: FleetService, registry: RegistryService, tasks: TaskService, pool: Pool
) -> None:
    agent_id = await registered(registry)
    await fleet.pause(agent_id, until=MINUTES, note="", by="ann")
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET paused_until = now() - interval '1 second'")
    [task_id] = await pending(tasks)

    assert await is_given(pool, task_id, agent_id)
    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert (agent.paused_until, agent.paused_by, agent.pause_note) == (None, None, None)


@pytest.mark.parametrize("end", [timedelta(0), timedelta(days=8), datetime(2020, 1, 1, tzinfo=UTC)])
async def test_a_pause_ends_in_the_future_and_within_a_week(
    fleet: FleetService, registry: RegistryService, pool: Pool, end: Any
) -> None:
    agent_id = await registered(registry)

    with pytest.raises(InvalidField):
        await fleet.pause(agent_id, until=end, note="", by="ann")

    assert await orders_to(pool, agent_id) == []


async def test_a_pause_holds_when_the_agent_is_started_anew_and_it_is_told_again(
    fleet: FleetService, registry: RegistryService, pool: Pool
) -> None:
    heartbeat = make_heartbeat()
    await registry.record([heartbeat])
    await fleet.pause(heartbeat.agent_id, until=MINUTES, note="", by="ann")
    await orders_to(pool, heartbeat.agent_id)

    await registry.record([heartbeat])
    assert await orders_to(pool, heartbeat.agent_id) == []
    await registry.record([heartbeat.model_copy(update={"started_at": RESTARTED})])

    assert [order["action"] for order in await orders_to(pool, heartbeat.agent_id)] == ["pause"]
    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert agent.paused_until is not None


# Drain


async def test_a_draining_agent_gets_nothing_new_and_is_told_until_it_obeys(
    fleet: FleetService, registry: RegistryService, tasks: TaskService, pool: Pool
) -> None:
    heartbeat = make_heartbeat()
    await registry.record([heartbeat])
    agent = await fleet.drain(heartbeat.agent_id, note="new kernel", by="ann")
    [task_id] = await pending(tasks)

    assert (agent.draining, agent.drain_note) == (True, "new kernel")
    assert await orders_to(pool, heartbeat.agent_id) == [
        Drain(started_at=heartbeat.started_at, note="new kernel").model_dump(mode="json")
    ]
    assert not await is_given(pool, task_id, heartbeat.agent_id)
    await registry.record([heartbeat])
    assert [order["action"] for order in await orders_to(pool, heartbeat.agent_id)] == ["drain"]
    await registry.record([heartbeat.model_copy(update={"status": AgentStatus.DRAINING})])
    assert await orders_to(pool, heartbeat.agent_id) == []


async def test_a_drain_ends_when_the_agent_is_started_again(
    fleet: FleetService, registry: RegistryService, tasks: TaskService, pool: Pool
) -> None:
    heartbeat = make_heartbeat()
    await registry.record([heartbeat])
    await fleet.drain(heartbeat.agent_id, note="", by="ann")
    await registry.record([heartbeat.model_copy(update={"status": AgentStatus.OFFLINE})])
    await orders_to(pool, heartbeat.agent_id)
    [task_id] = await pending(tasks)

    await registry.record([heartbeat.model_copy(update={"started_at": RESTARTED})])

    assert await is_given(pool, task_id, heartbeat.agent_id)
    assert await orders_to(pool, heartbeat.agent_id) == []
    kinds = [event.kind for event in await events_of(pool) if event.agent_id == heartbeat.agent_id]
    assert kinds[:4] == [Kind.AGENT_REGISTERED, Kind.AGENT_DRAINING, Kind.AGENT_STATUS, Kind.AGENT_REGISTERED]
    assert kinds[4] == Kind.AGENT_RESUMED


async def test_an_agent_that_is_away_is_not_told_to_leave_when_it_comes(
    fleet: FleetService, registry: RegistryService, pool: Pool
) -> None:
    heartbeat = make_heartbeat(status=AgentStatus.OFFLINE)
    await registry.record([heartbeat])
    await fleet.drain(heartbeat.agent_id, note="", by="ann")
    assert await orders_to(pool, heartbeat.agent_id) == []

    back = heartbeat.model_copy(update={"status": AgentStatus.ONLINE})
    await registry.record([back.model_copy(update={"started_at": RESTARTED})])
    assert await orders_to(pool, heartbeat.agent_id) == []
    await fleet.drain(heartbeat.agent_id, note="", by="ann")
    assert [order["action"] for order in await orders_to(pool, heartbeat.agent_id)] == ["drain"]


async def test_an_agent_that_was_not_heard_for_a_while_is_told_when_it_is_heard_again(
    fleet: FleetService, registry: RegistryService, pool: Pool
) -> None:
    heartbeat = make_heartbeat()
    await registry.record([heartbeat])
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET last_heartbeat_at = now() - interval '31 seconds'")
    await fleet.drain(heartbeat.agent_id, note="", by="ann")
    assert await orders_to(pool, heartbeat.agent_id) == []

    await registry.record([heartbeat])

    assert [order["action"] for order in await orders_to(pool, heartbeat.agent_id)] == ["drain"]


async def test_a_late_heartbeat_of_the_old_process_does_not_end_a_drain(
    fleet: FleetService, registry: RegistryService
) -> None:
    heartbeat = make_heartbeat(started_at=RESTARTED)
    await registry.record([heartbeat])
    await fleet.drain(heartbeat.agent_id, note="", by="ann")

    await registry.record([heartbeat.model_copy(update={"started_at": RESTARTED - timedelta(days=1)})])

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert agent.draining


# Resume


async def test_resume_ends_whatever_holds_an_agent_back(
    fleet: FleetService, registry: RegistryService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id = await registered(registry)
    for _ in range(3):
        await fails(tasks, leases, pool, agent_id, 5005)
    await fleet.pause(agent_id, until=MINUTES, note="", by="ann")
    await fleet.drain(agent_id, note="", by="ann")
    await orders_to(pool, agent_id)
    [task_id] = await pending(tasks)

    agent = await fleet.resume(agent_id, by="ann")

    assert (agent.paused_until, agent.draining, agent.tripped_until) == (None, False, None)
    assert await orders_to(pool, agent_id) == [Resume().model_dump()]
    assert (await events_of(pool))[-1].kind == Kind.AGENT_RESUMED
    assert await is_given(pool, task_id, agent_id)


async def test_an_agent_that_was_resumed_is_tripped_by_new_failures_only(
    fleet: FleetService, registry: RegistryService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id = await registered(registry)
    for _ in range(3):
        await fails(tasks, leases, pool, agent_id, 5005)
    await fleet.resume(agent_id, by="ann")

    await fails(tasks, leases, pool, agent_id, 5005)

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert agent.tripped_until is None


async def test_an_agent_that_never_registered_cannot_be_ordered(fleet: FleetService) -> None:
    stranger = uuid4()

    for order in (
        fleet.pause(stranger, until=MINUTES, note="", by="ann"),
        fleet.drain(stranger, note="", by="ann"),
        fleet.resume(stranger, by="ann"),
    ):
        with pytest.raises(AgentNotFound):
            await order


# Forget


async def test_an_agent_is_forgotten_only_when_it_is_offline_and_runs_nothing(
    fleet: FleetService, registry: RegistryService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    heartbeat = make_heartbeat()
    agent_id = heartbeat.agent_id
    await registry.record([heartbeat])
    [task_id] = await pending(tasks)

    with pytest.raises(AgentWorks, match="is online"):
        await fleet.forget(agent_id, by="ann")
    await lease_to(pool, task_id, agent_id=agent_id)
    await registry.record([heartbeat.model_copy(update={"status": AgentStatus.OFFLINE})])
    with pytest.raises(AgentWorks, match="is offline"):
        await fleet.forget(agent_id, by="ann")
    await leases.accept([make_result(task_id, agent_id)])
    await fleet.forget(agent_id, by="ann")

    assert await registry.list_agents(agent_type=None, status=None) == []
    assert (await events_of(pool))[-1].kind == Kind.AGENT_FORGOTTEN


# Circuit breaker


async def test_an_agent_that_fails_in_a_row_gets_no_work_and_is_told(
    registry: RegistryService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id = await registered(registry)
    for error_code in (5002, 5005, 5005):
        await fails(tasks, leases, pool, agent_id, error_code)
    [task_id] = await pending(tasks)

    assert not await is_given(pool, task_id, agent_id)
    [agent] = await registry.list_agents(agent_type=None, status=None)
    [tripped] = [event for event in await events_of(pool) if event.kind == Kind.AGENT_TRIPPED]
    assert agent.tripped_until is not None
    assert tripped.data == {"failures": 3, "until": agent.tripped_until.isoformat(), "reason": None}
    assert {order["action"] for order in await orders_to(pool, agent_id)} == {"pause"}


async def test_failures_of_the_work_itself_never_trip(
    registry: RegistryService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id = await registered(registry)

    for error_code in (None, 5001, None, 5001, 5005, 5005, None, 5005, 5005):
        await fails(tasks, leases, pool, agent_id, error_code)

    assert Kind.AGENT_TRIPPED not in [event.kind for event in await events_of(pool)]


async def test_lost_leases_count_as_failures(
    registry: RegistryService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id = await registered(registry)
    ids = await pending(tasks, 3)
    await lease_to(pool, *ids, agent_id=agent_id)
    await let_leases_run_out(pool)

    await leases.reap(limit=10)

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert agent.tripped_until is not None


async def test_after_the_time_one_task_may_try_and_its_success_ends_the_trip(
    registry: RegistryService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id = await registered(registry)
    for _ in range(3):
        await fails(tasks, leases, pool, agent_id, 5005)
    await let_trips_end(pool)
    first, second, third = await pending(tasks, 3)

    assert await lease_to(pool, second, third, agent_id=agent_id) == [], "more than one"
    assert await gets(pool, agent_id, room=3, breaker=BREAKER) == [first]
    assert not await is_given(pool, second, agent_id)
    await orders_to(pool, agent_id)
    await leases.accept([make_result(first, agent_id)])

    assert await orders_to(pool, agent_id) == [Resume().model_dump()]
    assert await is_given(pool, second, agent_id)


async def test_a_trial_that_fails_trips_again_at_once(
    registry: RegistryService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id = await registered(registry)
    for _ in range(3):
        await fails(tasks, leases, pool, agent_id, 5005)
    await let_trips_end(pool)

    await fails(tasks, leases, pool, agent_id, 5005)

    tripped = [event.data["failures"] for event in await events_of(pool) if event.kind == Kind.AGENT_TRIPPED]
    assert tripped == [3, 4]
    [task_id] = await pending(tasks)
    assert not await is_given(pool, task_id, agent_id)


async def test_of_two_orchestrators_one_gives_the_trial(
    registry: RegistryService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id = await registered(registry)
    for _ in range(3):
        await fails(tasks, leases, pool, agent_id, 5005)
    await let_trips_end(pool)
    ids = await pending(tasks, 4)

    given = await asyncio.gather(*(lease_to(pool, task_id, agent_id=agent_id) for task_id in ids))

    assert sum(map(len, given)) == 1


async def test_a_worker_on_trial_that_claims_twice_at_the_same_moment_gets_one_task(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    one = await worker(pool)
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET failures_in_row = 3, tripped_until = now() - interval '1 second'")
    await pending(tasks, 3)

    given = await claims_of(pool, leases).give([wanted(one), wanted(one)])

    assert sum(task is not None for task in given) == 1


async def test_a_failing_agent_does_not_hold_back_others(
    registry: RegistryService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    failing, well = await registered(registry), await registered(registry)
    for _ in range(3):
        await fails(tasks, leases, pool, failing, 5005)
    [task_id] = await pending(tasks)

    assert not await is_given(pool, task_id, failing)
    assert await is_given(pool, task_id, well)
