"""Grants that never come to their agents: the work is granted once more, and room that they took is free again."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from common.lifecycle import Status
from orchestrator.database.pool import Pool
from orchestrator.leases.model import Leased
from tests.factories import make_new_task, make_result
from tests.integration.orchestrator.ledger import let_leases_run_out
from tests.integration.orchestrator.on_credit import LEASE, Agent, Orchestrator


async def dispatch(one: Orchestrator, count: int) -> list[Leased]:
    """Dispatch so many tasks; return those that went to an agent."""
    at_once = (await one.dispatch(*(make_new_task() for _ in range(count)))).leased
    return [*at_once, *(await one.giving.by_credit()).leased]


async def beat(one: Orchestrator, agent: Agent, *running: UUID, heard: int, received: int) -> list[Leased]:
    """Have a heartbeat taken in; return what is granted again."""
    update = agent.heartbeat(running, heard=heard, received=received)
    assert update.credit is not None
    credits = {agent.agent_id: update.credit}
    await one.registry.record([update])
    await one.leases.take_in(credits)
    return await one.leases.settle(credits)


async def test_work_whose_grant_was_lost_is_granted_again_to_the_same_lease(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=2)
    await one.hears(agent)
    came, lost = await dispatch(one, 2)

    again = await beat(one, agent, came.task.task_id, heard=2, received=1)

    assert [(each.task.task_id, each.attempt, each.credit) for each in again] == [
        (lost.task.task_id, lost.attempt, agent.number)
    ]
    assert await dispatch(one, 1) == []


async def test_work_whose_grant_was_lost_is_granted_again_also_while_other_work_comes_and_goes(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=2)
    await one.hears(agent)
    came, lost = await dispatch(one, 2)
    agent.limit += 1
    done = {agent.agent_id: agent.credit(heard=2, received=1)}
    await one.leases.accept([make_result(came.task.task_id, agent.agent_id)], done)

    [third] = await dispatch(one, 1)
    again = await beat(one, agent, third.task.task_id, heard=third.granted or 0, received=2)

    assert third.granted == 3
    assert [each.task.task_id for each in again] == [lost.task.task_id]


async def test_a_session_that_was_replaced_is_granted_nothing_again(pool: Pool) -> None:
    one, agent, newer = Orchestrator(pool), Agent(slots=2), Agent(slots=2)
    newer.agent_id = agent.agent_id
    await one.hears(agent)
    await dispatch(one, 2)
    late = agent.credit(heard=2, received=0)
    await one.hears(newer)

    assert await one.leases.settle({agent.agent_id: late}) == []


async def test_only_the_lease_of_what_was_lost_begins_anew(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=2)
    await one.hears(agent)
    came, lost = await dispatch(one, 2)
    async with pool.acquire() as db:
        await db.execute("UPDATE task SET lease_expires_at = now() + interval '1 second'")

    await beat(one, agent, came.task.task_id, heard=2, received=1)

    for leased, lasts in ((came, timedelta(seconds=1)), (lost, LEASE)):
        until = (await one.tasks.get(leased.task.task_id)).lease_expires_at
        assert until is not None
        assert until - datetime.now(UTC) == pytest.approx(lasts, abs=timedelta(seconds=2))


async def test_a_lost_grant_whose_lease_ran_out_frees_its_room_too(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=1)
    await one.hears(agent)
    [lost] = await dispatch(one, 1)
    await let_leases_run_out(pool)
    await one.leases.reap(limit=1)
    assert await dispatch(one, 1) == []

    assert await beat(one, agent, heard=1, received=0) == []

    assert len(await dispatch(one, 0)) == 1
    assert (await one.tasks.get(lost.task.task_id)).status is Status.FAILED


async def test_a_lost_grant_that_is_over_frees_its_room_once_however_often_its_agent_misses_it(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=2)
    await one.hears(agent)
    came, lost = await dispatch(one, 2)
    await one.tasks.cancel(lost.task.task_id, by="ann")

    for _ in range(3):
        assert await beat(one, agent, came.task.task_id, heard=2, received=1) == []

    assert len(await dispatch(one, 3)) == 1


async def test_a_grant_that_was_only_late_takes_its_room_all_the_same(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=2)
    await one.hears(agent)
    came, late = await dispatch(one, 2)
    await one.tasks.cancel(late.task.task_id, by="ann")
    await beat(one, agent, came.task.task_id, heard=2, received=1)

    # It came, and was stopped; the agent says so with what it has room for.
    agent.limit += 1
    await beat(one, agent, came.task.task_id, heard=2, received=2)

    assert len(await dispatch(one, 3)) == 1


async def test_a_heartbeat_that_comes_late_frees_no_room_of_work_that_came_since(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=1)
    await one.hears(agent)
    [leased] = await dispatch(one, 1)
    old = agent.credit(heard=1, received=0)
    agent.limit += 1
    done = {agent.agent_id: agent.credit(heard=1, received=1)}
    await one.leases.accept([make_result(leased.task.task_id, agent.agent_id)], done)

    assert await one.leases.settle({agent.agent_id: old}) == []

    assert len(await dispatch(one, 3)) == 1


async def test_a_loss_that_is_settled_has_nothing_granted_twice_that_is_on_its_way(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=1)
    await one.hears(agent)
    [lost] = await dispatch(one, 1)
    await one.tasks.cancel(lost.task.task_id, by="ann")
    await beat(one, agent, heard=1, received=0)
    [on_its_way] = await dispatch(one, 1)

    assert await beat(one, agent, heard=1, received=0) == []
    again = await beat(one, agent, heard=2, received=0)

    assert [each.task.task_id for each in again] == [on_its_way.task.task_id], "now it is missed, too"


async def test_work_of_an_earlier_session_is_not_granted_again_to_the_one_that_replaced_it(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=1)
    await one.hears(agent)
    await dispatch(one, 1)
    agent.session, agent.number = uuid4(), 0
    await one.hears(agent)
    [lost] = await dispatch(one, 1)

    again = await beat(one, agent, heard=1, received=0)

    assert [each.task.task_id for each in again] == [lost.task.task_id]


async def test_a_loss_of_an_earlier_session_frees_no_room_of_the_one_that_replaced_it(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=1)
    await one.hears(agent)
    [lost] = await dispatch(one, 1)
    await one.tasks.cancel(lost.task.task_id, by="ann")
    late = agent.credit(heard=1, received=0)
    agent.session, agent.number = uuid4(), 0
    for _ in range(late.number):
        await one.hears(agent)
    assert len(await dispatch(one, 1)) == 1

    assert await one.leases.settle({agent.agent_id: late}) == []

    assert await dispatch(one, 1) == []


async def test_work_that_its_agent_has_not_got_after_three_leases_is_left_to_end(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=1)
    await one.hears(agent)
    await dispatch(one, 1)
    async with pool.acquire() as db:
        await db.execute("UPDATE task SET started_at = started_at - $1::interval", 3 * LEASE)

    assert await beat(one, agent, heard=1, received=0) == []


async def test_losses_that_are_missed_one_after_the_other_free_their_room_once(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=2)
    await one.hears(agent)
    for leased in await dispatch(one, 2):
        await one.tasks.cancel(leased.task.task_id, by="ann")

    for heard in (1, 2):
        assert await beat(one, agent, heard=heard, received=0) == []

    assert len(await dispatch(one, 3)) == 2
