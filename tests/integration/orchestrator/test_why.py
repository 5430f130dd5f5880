"""The reasons why a task waits come from the ledger as it is."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.messages import AgentStatus, Credit, ResultStatus
from common.rest.why import BlockerKind
from orchestrator.database.pool import Pool
from orchestrator.leases.service import LeaseService
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskNotFound, TaskService
from orchestrator.why.model import Blocker
from orchestrator.why.service import Failures, WhyService
from tests.factories import make_heartbeat, make_new_task, make_result
from tests.integration.ledger import lease_to


async def nothing_is_wrong() -> Failures:
    return Failures()


@pytest.fixture
def why(pool: Pool) -> WhyService:
    return WhyService(pool, offline_after=timedelta(seconds=30), failures=nothing_is_wrong)


async def blockers(why: WhyService, task_id: UUID) -> dict[BlockerKind, Blocker]:
    return {blocker.kind: blocker for blocker in (await why.explain(task_id)).blockers}


async def dispatched(tasks: TaskService, **values: Any) -> UUID:
    task = make_new_task(**values)
    await tasks.dispatch([task], by="caller")
    return task.task_id


async def claimed(pool: Pool, task_id: UUID, agent_id: UUID) -> None:
    [_] = await lease_to(pool, task_id, agent_id=agent_id)


async def test_a_task_that_nobody_dispatched_is_not_found(why: WhyService) -> None:
    with pytest.raises(TaskNotFound):
        await why.explain(uuid4())


async def test_from_nobody_there_to_ended(
    why: WhyService, tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool
) -> None:
    agent_id, task_id = uuid4(), await dispatched(tasks)
    assert list(await blockers(why, task_id)) == [BlockerKind.NO_AGENT, BlockerKind.QUEUED]

    await registry.record([make_heartbeat(agent_id)])
    assert list(await blockers(why, task_id)) == [BlockerKind.QUEUED]
    await claimed(pool, task_id, agent_id)
    running = await blockers(why, task_id)
    await leases.accept([make_result(task_id, agent_id)])

    assert list(running) == [BlockerKind.RUNNING]
    assert f"host-1 ({agent_id})" in running[BlockerKind.RUNNING].message
    assert list(await blockers(why, task_id)) == [BlockerKind.ENDED]
    assert not (await why.explain(task_id)).waiting


async def test_an_agent_of_another_type_does_not_help(
    why: WhyService, tasks: TaskService, registry: RegistryService
) -> None:
    await registry.record([make_heartbeat(agent_type="desktop")])

    assert BlockerKind.NO_AGENT in await blockers(why, await dispatched(tasks))


async def test_slots_are_counted_by_the_leases(
    why: WhyService, tasks: TaskService, registry: RegistryService, pool: Pool
) -> None:
    agent_id = uuid4()
    await registry.record([make_heartbeat(agent_id, slots=2)])
    busy = [await dispatched(tasks) for _ in range(2)]
    waiting = await dispatched(tasks)
    await claimed(pool, busy[0], agent_id)
    assert BlockerKind.SLOTS_BUSY not in await blockers(why, waiting)

    await claimed(pool, busy[1], agent_id)

    assert "runs 2 of 2" in (await blockers(why, waiting))[BlockerKind.SLOTS_BUSY].message


async def test_an_agent_that_asks_for_no_work_has_no_room_and_one_over_http_asks_for_each_task(
    why: WhyService, tasks: TaskService, registry: RegistryService
) -> None:
    starting, session = uuid4(), uuid4()
    task_id = await dispatched(tasks)
    await registry.record(
        [make_heartbeat(starting, boot_id=session, credit=Credit(session=session, number=1, limit=0))]
    )

    assert list(await blockers(why, task_id)) == [BlockerKind.AGENT_NOT_ASKING, BlockerKind.QUEUED]
    [found] = await why.capacity({}, agent_type=None, work_type=None)
    assert (found.free_slots, [reason[:25] for reason in found.reasons]) == (0, ["takes no work just now: i"])

    await registry.record(
        [make_heartbeat(starting, boot_id=session, credit=Credit(session=session, number=2, limit=1))]
    )
    assert list(await blockers(why, task_id)) == [BlockerKind.QUEUED]
    [found] = await why.capacity({}, agent_type=None, work_type=None)
    assert (found.free_slots, list(found.reasons)) == (1, [])

    await registry.record([make_heartbeat()])
    assert sorted(one.free_slots for one in await why.capacity({}, agent_type=None, work_type=None)) == [1, 2]


@pytest.mark.parametrize("status", [AgentStatus.OFFLINE, AgentStatus.DRAINING])
async def test_what_an_agent_says_of_itself_counts(
    why: WhyService, tasks: TaskService, registry: RegistryService, status: AgentStatus
) -> None:
    await registry.record([make_heartbeat(status=status)])
    kind = {AgentStatus.OFFLINE: BlockerKind.NO_AGENT, AgentStatus.DRAINING: BlockerKind.AGENT_DRAINING}[status]

    assert kind in await blockers(why, await dispatched(tasks))


async def test_a_silent_agent_is_not_online(
    why: WhyService, tasks: TaskService, registry: RegistryService, pool: Pool
) -> None:
    await registry.record([make_heartbeat()])
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET last_heartbeat_at = now() - interval '1 minute'")

    assert "was last heard of" in (await blockers(why, await dispatched(tasks)))[BlockerKind.NO_AGENT].message


async def test_pauses_and_trips_count_until_they_are_over(
    why: WhyService, tasks: TaskService, registry: RegistryService, pool: Pool
) -> None:
    hold = """
        UPDATE agent SET paused_until = now() + $1::interval, paused_by = 'anna', pause_note = 'disk',
                         tripped_until = now() + $1::interval
    """
    await registry.record([make_heartbeat()])
    task_id = await dispatched(tasks)
    async with pool.acquire() as db:
        await db.execute(hold, timedelta(minutes=1))
    held = await blockers(why, task_id)
    async with pool.acquire() as db:
        await db.execute(hold, -timedelta(minutes=1))

    assert [held[kind].by for kind in (BlockerKind.AGENT_PAUSED, BlockerKind.AGENT_TRIPPED)] == ["anna", None]
    assert list(await blockers(why, task_id)) == [BlockerKind.QUEUED]


async def test_the_position_counts_the_tasks_that_go_before_it(why: WhyService, tasks: TaskService) -> None:
    made = [await dispatched(tasks, priority=priority) for priority in (3, 1, 5, 3)]

    assert [(await blockers(why, task_id))[BlockerKind.QUEUED].ahead for task_id in made] == [1, 3, 0, 2]


async def test_others_of_its_keys_are_named(
    why: WhyService, tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool
) -> None:
    agent_id = uuid4()
    await registry.record([make_heartbeat(agent_id)])
    keys = {"ordering_key": "web-1", "concurrency_key": "pulls", "concurrency_limit": 1}
    first, second, third = [await dispatched(tasks, **keys) for _ in range(3)]
    await claimed(pool, first, agent_id)

    told = await blockers(why, third)

    assert list(told) == [BlockerKind.ORDERING_KEY, BlockerKind.CONCURRENCY_KEY]
    assert (told[BlockerKind.ORDERING_KEY].ahead, told[BlockerKind.ORDERING_KEY].task_ids) == (2, [first])
    assert (told[BlockerKind.CONCURRENCY_KEY].limit, told[BlockerKind.CONCURRENCY_KEY].task_ids) == (1, [first])

    await tasks.cancel(first, by="caller")
    stopping = await blockers(why, second)
    assert "being stopped" in stopping[BlockerKind.ORDERING_KEY].message
    assert stopping[BlockerKind.CONCURRENCY_KEY].task_ids == [first]
    await leases.accept([make_result(first, agent_id, status=ResultStatus.CANCELLED)])
    assert list(await blockers(why, second)) == [BlockerKind.QUEUED]


async def test_the_place_among_those_that_wait_for_a_limit_is_by_priority(why: WhyService, tasks: TaskService) -> None:
    made = [
        await dispatched(tasks, concurrency_key="pulls", concurrency_limit=1, priority=priority)
        for priority in (3, 1, 5, 5)
    ]

    ahead = [(await blockers(why, task_id))[BlockerKind.CONCURRENCY_KEY].ahead for task_id in made[1:]]

    assert ahead == [2, 0, 1]


async def test_a_retry_says_when_it_is_due(why: WhyService, tasks: TaskService, pool: Pool) -> None:
    task_id = await dispatched(tasks, max_attempts=3)
    async with pool.acquire() as db:
        await db.execute("UPDATE task SET attempt = 1, error_message = 'agent lost'")
        await db.execute("UPDATE task SET not_before = now() + interval '4 seconds'")

    told = await blockers(why, task_id)

    assert "Start 2 of at most 3 is due" in told[BlockerKind.RETRY_DUE].message
    assert BlockerKind.QUEUED not in told


async def test_a_task_that_expires_says_when(why: WhyService, tasks: TaskService) -> None:
    task_id = await dispatched(tasks, expires_after=timedelta(hours=1))

    told = await blockers(why, task_id)

    assert told[BlockerKind.EXPIRES].at == (await tasks.get(task_id)).expires_at


async def test_a_broker_that_is_away_is_told(pool: Pool, tasks: TaskService) -> None:
    async def away() -> Failures:
        return Failures(broker="connection refused")

    why = WhyService(pool, offline_after=timedelta(seconds=30), failures=away)

    told = await blockers(why, await dispatched(tasks))

    assert told[BlockerKind.BROKER_DOWN].message == "The broker cannot be used: connection refused"
