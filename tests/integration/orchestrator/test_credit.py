"""The account of credit: an agent is granted as much as its session asked for, by any number of orchestrators."""

import asyncio
from uuid import UUID, uuid4

import pytest

from common.lifecycle import Status
from common.loop import Wake
from common.messages import ResultStatus
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool, open_pool
from orchestrator.leases.credits import Credits
from orchestrator.leases.service import LeaseService
from orchestrator.registry.model import Room
from tests.factories import make_heartbeat, make_new_task, make_result
from tests.integration.ledger import register
from tests.integration.orchestrator.on_credit import LEASE, Agent, Orchestrator, account, ids, statuses


async def test_a_dispatch_whose_agent_has_no_credit_any_more_waits_and_is_given_later(pool: Pool) -> None:
    one, other, agent = Orchestrator(pool), Orchestrator(pool), Agent(slots=1)
    first, second = make_new_task(), make_new_task()
    for at in (one, other):
        await at.hears(agent)
    await other.dispatch(first)

    done = await one.dispatch(second)

    assert (done.leased, done.waits) == ([], True)
    assert await one.give() == {}
    await agent.reports(one, make_result(first.task_id, agent.agent_id))
    assert await one.give() == {second.task_id: agent.agent_id}


async def test_two_orchestrators_at_once_grant_no_more_than_an_agent_allows(ledger_url: str, pool: Pool) -> None:
    async with open_pool(ledger_url, connections=4) as another:
        both, agents = [Orchestrator(pool), Orchestrator(another)], [Agent(slots=5), Agent(slots=3)]
        for at in both:
            await at.hears(*agents)
        work = [[make_new_task() for _ in range(3)] for _ in range(12)]

        done, given = await asyncio.gather(
            asyncio.gather(*(both[number % 2].dispatch(*tasks) for number, tasks in enumerate(work))),
            asyncio.gather(*(at.give() for at in both * 4)),
        )
        given += [await at.give() for at in both]

    at_once = [lease.task.task_id for one in done for lease in one.leased]
    later = [task_id for turn in given for task_id in turn]
    assert len(at_once) + len(later) == len({*at_once, *later}) == 8
    for agent, slots in zip(agents, (5, 3), strict=True):
        assert await account(pool, agent) == {"credit_limit": slots, "granted": slots, "lost": 0, "credit_number": 2}
    async with pool.acquire() as db:
        running = await db.fetch("SELECT agent_id, count(*) FROM task WHERE status = 'running' GROUP BY agent_id")
    assert {row["agent_id"]: row["count"] for row in running} == {agents[0].agent_id: 5, agents[1].agent_id: 3}


async def test_two_orchestrators_take_turns_with_one_agent_until_everything_has_run(
    ledger_url: str, pool: Pool
) -> None:
    async with open_pool(ledger_url, connections=4) as another:
        both, agent = [Orchestrator(pool), Orchestrator(another)], Agent(slots=3)
        for at in both:
            await at.hears(agent)
        tasks = [make_new_task() for _ in range(30)]
        leased = [one for number, task in enumerate(tasks) for one in (await both[number % 2].dispatch(task)).leased]
        running, ran = ids(*(lease.task for lease in leased)), list[UUID]()
        while running:
            assert len(running) <= 3
            await agent.reports(both[len(ran) % 2], *(make_result(task_id, agent.agent_id) for task_id in running))
            ran += running
            running = [task_id for turn in await asyncio.gather(*(at.give() for at in both)) for task_id in turn]

    assert sorted(ran) == sorted(ids(*tasks))
    assert (await account(pool, agent))["granted"] == 30


async def test_credit_that_is_repeated_lost_or_late_changes_nothing_wrongly(at: Orchestrator, pool: Pool) -> None:
    agent = Agent(slots=1)
    first = agent.credit()
    await at.reads(make_heartbeat(agent.agent_id, boot_id=agent.session, credit=first))
    agent.limit = 2
    agent.credit()  # which is lost
    agent.limit = 3
    newest = agent.credit()

    for credit in (newest, first, newest, first):
        await at.leases.take_in({agent.agent_id: credit})
        assert await account(pool, agent) == {"credit_limit": 3, "granted": 0, "lost": 0, "credit_number": 3}
    await at.dispatch(*(make_new_task() for _ in range(5)))
    for credit in (first, newest):
        await at.leases.take_in({agent.agent_id: credit})
        assert await at.give() == {}, "what was granted is not granted again"

    assert (await account(pool, agent))["granted"] == 3


async def test_the_result_of_another_attempt_that_is_repeated_asks_for_nothing_more(
    at: Orchestrator, pool: Pool
) -> None:
    agent, tasks = Agent(slots=1), [make_new_task() for _ in range(4)]
    await at.hears(agent)
    await at.dispatch(*tasks)
    agent.limit = 2
    result, credit = make_result(tasks[0].task_id, agent.agent_id), agent.credit()

    for _ in range(3):
        await at.leases.accept([result], {agent.agent_id: credit})
        await at.give()

    assert await statuses(at, *tasks) == [Status.COMPLETED, Status.RUNNING, Status.PENDING, Status.PENDING]


async def test_a_new_session_begins_with_no_grants_and_the_earlier_one_asks_for_nothing_more(
    at: Orchestrator, pool: Pool
) -> None:
    agent, tasks = Agent(slots=1), [make_new_task(max_attempts=2) for _ in range(3)]
    await at.hears(agent)
    await at.dispatch(*tasks)
    agent.limit = 8
    of_before = agent.credit()

    agent.session, agent.limit, agent.number = uuid4(), 1, 0
    await at.hears(agent)
    assert await account(pool, agent) == {"credit_limit": 1, "granted": 0, "lost": 0, "credit_number": 1}
    await at.leases.take_in({agent.agent_id: of_before})
    await at.leases.accept([make_result(tasks[0].task_id, agent.agent_id)], {agent.agent_id: of_before})

    assert await at.give() == {tasks[1].task_id: agent.agent_id}
    assert await statuses(at, *tasks) == [Status.COMPLETED, Status.RUNNING, Status.PENDING]
    assert (await account(pool, agent))["credit_limit"] == 1


async def test_new_work_is_leased_to_the_newest_session(at: Orchestrator, pool: Pool) -> None:
    agent, task = Agent(slots=1), make_new_task()
    await at.hears(agent)
    before = agent.session
    agent.session, agent.number = uuid4(), 0
    await at.hears(agent)

    done = await at.dispatch(task)

    assert [lease.claim_id for lease in done.leased] == [agent.session]
    assert (await at.tasks.get(task.task_id)).claim_id != before


async def test_an_agent_that_asks_for_less_gets_no_more_until_it_has_ended_as_much(at: Orchestrator) -> None:
    """While it takes no work its limit stays as it was, so what it ends makes no room."""
    agent, tasks = Agent(slots=2), [make_new_task() for _ in range(4)]
    await at.hears(agent)
    await at.dispatch(*tasks)

    await at.leases.accept([make_result(tasks[0].task_id, agent.agent_id)], {agent.agent_id: agent.credit()})

    assert await at.give() == {}


async def test_tasks_that_end_otherwise_make_room_only_when_their_agent_says_so(at: Orchestrator, pool: Pool) -> None:
    """A cancelled task may still run."""
    agent, tasks = Agent(slots=1), [make_new_task() for _ in range(2)]
    await at.hears(agent)
    await at.dispatch(*tasks)
    await at.tasks.cancel(tasks[0].task_id, by="caller")

    assert await at.give() == {}
    await agent.reports(at, make_result(tasks[0].task_id, agent.agent_id, status=ResultStatus.CANCELLED))
    assert await at.give() == {tasks[1].task_id: agent.agent_id}


async def test_work_goes_to_agents_that_only_the_ledger_knows(at: Orchestrator, pool: Pool) -> None:
    """An orchestrator that has just started has heard of none."""
    task, agent_id = make_new_task(), uuid4()
    await register(pool, agent_id)

    done = await at.dispatch(task)

    assert (done.leased, done.waits) == ([], True)
    assert await at.give() == {task.task_id: agent_id}


async def test_tasks_that_wait_are_looked_for_when_an_agent_gets_room_and_not_before(pool: Pool) -> None:
    agent, credits, giver = uuid4(), Credits(), Wake()
    leases = LeaseService(pool, lease=LEASE, policy=RetryPolicy(), credits=credits, giver=giver)
    credits.waits_in("infra")

    leases.learn([Room(agent, 0, 1, 4)])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(giver.rung(), 0.01)
    leases.learn([Room(agent, 1, 2, 4)])

    await asyncio.wait_for(giver.rung(), 1)
