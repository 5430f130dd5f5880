"""Work that waits goes to agents that have credit for it, best first, and to no agent that may not have it."""

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from common.lifecycle import Status
from common.messages import AgentStatus, ResultStatus
from common.policy.model import ApprovalDemand, Effect, Ruling
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.jobs import queries as jobs
from orchestrator.jobs.model import Worker
from orchestrator.leases import waiting_queries
from orchestrator.leases.model import Line
from orchestrator.registry.rules import BreakerPolicy
from tests.factories import make_credit, make_heartbeat, make_new_task, make_result
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.ledger import age, kinds_of
from tests.integration.orchestrator.on_credit import Agent, Orchestrator, account, agents_of, ids, statuses
from tests.integration.orchestrator.test_keys import let_pass
from tests.integration.orchestrator.test_shut_out import disable, named

CLAIMED = [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]


async def test_what_waits_goes_when_a_result_makes_room(at: Orchestrator) -> None:
    agent, first, second = Agent(slots=1), make_new_task(), make_new_task()
    await at.hears(agent)
    await at.dispatch(first, second)
    assert await at.give() == {}

    await agent.reports(at, make_result(first.task_id, agent.agent_id))
    given = await at.giving.by_credit()

    assert agents_of(given.leased) == {second.task_id: agent.agent_id}
    assert given.leased[0].credit == agent.number
    assert await statuses(at, first) == [Status.COMPLETED]
    assert await at.give() == {}


async def test_what_waits_goes_by_priority_and_a_long_wait_is_worth_one(at: Orchestrator, pool: Pool) -> None:
    made = {priority: make_new_task(priority=priority) for priority in (1, 3, 5, 2, 4)}
    await at.dispatch(*made.values())
    await age(pool, made[1].task_id, timedelta(minutes=35))

    agent = Agent(slots=5)
    await at.hears(agent)

    assert list(await at.give()) == ids(made[5], made[1], made[4], made[3], made[2])


async def test_new_work_does_not_overtake_what_waits(at: Orchestrator) -> None:
    agent, old, new = Agent(slots=0), make_new_task(), make_new_task()
    await at.hears(agent)
    await at.dispatch(old)
    await at.give()
    agent.limit = 1
    await at.hears(agent)

    done = await at.dispatch(new)

    assert done.leased == []
    assert await at.give() == {old.task_id: agent.agent_id}


async def test_a_fast_agent_gets_more(at: Orchestrator, pool: Pool) -> None:
    """Whoever ends its work more often asks more often; nothing else decides."""
    fast, slow = Agent(slots=2), Agent(slots=2)
    await at.hears(fast, slow)
    await at.dispatch(*(make_new_task() for _ in range(60)))
    got: Counter[UUID] = Counter()
    running = {one.agent_id: list[UUID]() for one in (fast, slow)}
    async with pool.acquire() as db:
        for row in await db.fetch("SELECT task_id, agent_id FROM task WHERE status = 'running'"):
            running[row["agent_id"]].append(row["task_id"])
    for turn in range(16):
        for agent in (fast, slow) if turn % 4 == 0 else (fast,):
            ended = [running[agent.agent_id].pop() for _ in range(len(running[agent.agent_id]))]
            got[agent.agent_id] += len(ended)
            await agent.reports(at, *(make_result(task_id, agent.agent_id) for task_id in ended))
        for task_id, agent_id in (await at.give()).items():
            running[agent_id].append(task_id)

    assert got[fast.agent_id] == 32
    assert got[slow.agent_id] == 8


async def test_idle_agents_share_work_by_their_room(at: Orchestrator) -> None:
    large, small = Agent(slots=6), Agent(slots=2)
    await at.dispatch(*(make_new_task() for _ in range(6)))
    await at.hears(large, small)

    given = await at.give()

    assert Counter(given.values()) == {large.agent_id: 5, small.agent_id: 1}


async def test_agents_that_differ_get_what_they_can_do_and_what_they_are_preferred_for(at: Orchestrator) -> None:
    echo = Agent(slots=9, work_types=["echo"])
    render = Agent(slots=2, work_types=["render"], labels={"gpu": 24})
    both = Agent(slots=3, work_types=["echo", "render"], labels={"ssd": True})
    elsewhere = Agent(slots=9, agent_type="desktop")
    needs_gpu = make_new_task(work_type="render", hints={"required_capabilities": {"gpu": 16}})
    needs_more = make_new_task(work_type="render", hints={"required_capabilities": {"gpu": 48}})
    prefers = make_new_task(hints={"preferred": ["ssd"]})
    for_one = make_new_task(hints={"agent_id": str(both.agent_id)})
    plain, desktop = make_new_task(), make_new_task(agent_type="desktop")
    await at.dispatch(needs_gpu, needs_more, prefers, for_one, plain, desktop)
    await at.hears(echo, render, both, elsewhere)

    assert await at.give() == {
        needs_gpu.task_id: render.agent_id,
        prefers.task_id: both.agent_id,
        for_one.task_id: both.agent_id,
        plain.task_id: echo.agent_id,
        desktop.task_id: elsewhere.agent_id,
    }


async def test_work_that_aims_at_nobody_who_is_there_keeps_no_new_work_from_going_at_once(at: Orchestrator) -> None:
    agent, new = Agent(slots=2), make_new_task()
    lost = [make_new_task(hints={"agent_id": str(uuid4())}), make_new_task(hints={"required_capabilities": {"gpu": 1}})]
    await at.hears(agent)
    await at.tasks.dispatch(lost, by="caller")
    assert await at.give() == {}

    assert agents_of((await at.dispatch(new)).leased) == {new.task_id: agent.agent_id}


async def test_new_work_does_not_take_the_room_that_aimed_work_waits_for(at: Orchestrator) -> None:
    agent, running = Agent(slots=1), make_new_task()
    aimed, new = make_new_task(hints={"agent_id": str(agent.agent_id)}), make_new_task()
    await at.hears(agent)
    await at.dispatch(running)
    await at.tasks.dispatch([aimed], by="caller")
    assert await at.give() == {}
    await agent.reports(at, make_result(running.task_id, agent.agent_id))

    assert (await at.dispatch(new)).leased == []
    assert await at.give() == {aimed.task_id: agent.agent_id}


async def test_what_only_a_few_of_a_large_fleet_can_do_is_not_held_up_by_the_others(
    at: Orchestrator, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.leases.giving.MOST_AGENTS", 3)
    able, task = Agent(slots=1, work_types=["render"]), make_new_task(work_type="render")
    await at.hears(able, *(Agent(slots=9, work_types=["echo"]) for _ in range(5)))
    await at.tasks.dispatch([task, make_new_task(agent_type="desktop")], by="caller")

    assert await at.give() == {task.task_id: able.agent_id}


async def test_a_task_with_a_time_waits_until_then_and_holds_up_no_other(at: Orchestrator, pool: Pool) -> None:
    agent, later, now = Agent(slots=1), make_new_task(priority=5), make_new_task()
    await at.tasks.dispatch([later, now], by="caller")
    async with pool.acquire() as db:
        await db.execute("UPDATE task SET not_before = now() + interval '1 minute' WHERE task_id = $1", later.task_id)
    await at.hears(agent)

    assert await at.give() == {now.task_id: agent.agent_id}
    await agent.reports(at, make_result(now.task_id, agent.agent_id))
    assert await at.give() == {}
    async with pool.acquire() as db:
        await db.execute("UPDATE task SET not_before = now() WHERE task_id = $1", later.task_id)
    assert await at.give() == {later.task_id: agent.agent_id}


async def test_the_statement_that_leases_asks_for_the_time_again(at: Orchestrator, pool: Pool) -> None:
    task = make_new_task()
    await at.tasks.dispatch([task], by="caller")
    async with pool.acquire() as db:
        await db.execute("UPDATE task SET not_before = now() + interval '1 minute'")

    assert await lease_to(pool, task.task_id) == []


async def test_a_retry_waits_for_its_time_and_counts_its_start(at: Orchestrator) -> None:
    agent, task = Agent(slots=1), make_new_task(max_attempts=2)
    await at.hears(agent)
    await at.dispatch(task)
    failed = make_result(task.task_id, agent.agent_id, status=ResultStatus.FAILED, retryable=True, exit_code=1)

    await agent.reports(at, failed)

    assert await at.give() == {task.task_id: agent.agent_id}
    again = await at.tasks.get(task.task_id)
    assert (again.attempt, again.not_before) == (2, None)


async def test_what_must_not_run_is_cancelled_and_the_next_best_goes(at: Orchestrator, pool: Pool) -> None:
    ruling = Ruling("risky", "1", Effect.WRITE, ApprovalDemand(request_minutes=60, valid_minutes=5))
    edited, other = make_new_task(priority=5), make_new_task()
    agent, waits = Agent(slots=1), make_new_task(priority=5, ruling=ruling)
    await at.tasks.dispatch([edited, other, waits], by="caller")
    async with pool.acquire() as db:
        await db.execute("""UPDATE task SET parameters = '{"message": "rm"}' WHERE task_id = $1""", edited.task_id)
    await at.hears(agent)

    assert await at.give() == {other.task_id: agent.agent_id}
    assert await statuses(at, edited, waits) == [Status.CANCELLED, Status.AWAITING_APPROVAL]
    assert (await account(pool, agent))["granted"] == 1


# Agents that get nothing

Unfit = Callable[[Orchestrator, Pool, Agent], Awaitable[object]]


def held(change: str) -> Unfit:
    async def hold(at: Orchestrator, pool: Pool, agent: Agent) -> None:
        async with pool.acquire() as db:
            await db.execute(f"UPDATE agent SET {change} WHERE agent_id = $1", agent.agent_id)

    return hold


async def is_leaving(at: Orchestrator, pool: Pool, agent: Agent) -> None:
    await at.registry.record([make_heartbeat(agent.agent_id, boot_id=agent.session, status=AgentStatus.DRAINING)])


async def has_another_time(at: Orchestrator, pool: Pool, agent: Agent) -> None:
    wrong = datetime.now(UTC) + timedelta(hours=1)
    await at.registry.record([make_heartbeat(agent.agent_id, boot_id=agent.session, sent_at=wrong)])


async def is_disabled(at: Orchestrator, pool: Pool, agent: Agent) -> None:
    await disable(pool, agent.agent_id)


async def takes_something_else(at: Orchestrator, pool: Pool, agent: Agent) -> None:
    await at.registry.record([make_heartbeat(agent.agent_id, boot_id=agent.session, work_types=["render"])])


UNFIT = {
    "paused": held("paused_until = now() + interval '1 hour', paused_by = 'ann'"),
    "draining": held("draining = true"),
    "tripped": held("tripped_until = now() + interval '1 hour'"),
    "offline": held("status = 'offline'"),
    "no longer takes this work": takes_something_else,
    "leaving": is_leaving,
    "of another time": has_another_time,
    "disabled": is_disabled,
}


async def with_credit(at: Orchestrator, pool: Pool) -> Agent:
    agent = Agent(slots=4)
    agent.agent_id = await named(pool, "web-1")
    await at.hears(agent)
    return agent


@pytest.mark.parametrize("unfit", list(UNFIT.values()), ids=list(UNFIT))
async def test_an_agent_that_may_not_have_work_gets_neither_new_work_nor_what_waits_and_others_do(
    at: Orchestrator, pool: Pool, unfit: Unfit
) -> None:
    agent, old, new, other = await with_credit(at, pool), make_new_task(), make_new_task(), Agent(slots=4)
    await unfit(at, pool, agent)
    await at.tasks.dispatch([old], by="caller")

    done = await at.dispatch(new)

    assert (done.leased, done.waits) == ([], True)
    assert await at.give() == {}
    assert await kinds_of(pool, new.task_id) == [Kind.TASK_DISPATCHED]
    assert (await account(pool, agent))["granted"] == 0
    await at.hears(other)
    assert await at.give() == {old.task_id: other.agent_id, new.task_id: other.agent_id}


async def test_a_silent_agent_gets_nothing_of_what_waits(at: Orchestrator, pool: Pool) -> None:
    await with_credit(at, pool)
    await at.tasks.dispatch([make_new_task()], by="caller")
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET last_heartbeat_at = now() - interval '1 minute'")

    assert await at.give() == {}


async def test_an_agent_on_trial_gets_one_task_and_everything_when_that_went_well(pool: Pool) -> None:
    at = Orchestrator(pool, breaker=BreakerPolicy(failures=3, pause=timedelta(minutes=1)))
    agent, tasks = Agent(slots=4), [make_new_task() for _ in range(3)]
    await at.hears(agent)
    await held("tripped_until = now() - interval '1 second', failures_in_row = 3")(at, pool, agent)

    assert (await at.dispatch(*tasks)).leased == [], "the trial is given by one statement only"
    assert await at.give() == {tasks[0].task_id: agent.agent_id}
    assert await at.give() == {}
    await agent.reports(at, make_result(tasks[0].task_id, agent.agent_id))

    assert await at.give() == dict.fromkeys(ids(*tasks[1:]), agent.agent_id)


async def test_nothing_is_leased_while_the_broker_is_away(at: Orchestrator) -> None:
    agent, task = Agent(), make_new_task()
    await at.hears(agent)
    at.broker_is_there = False

    done = await at.dispatch(task)

    assert (done.leased, await at.give()) == ([], {})
    assert await statuses(at, task) == [Status.PENDING]
    at.broker_is_there = True
    assert await at.give() == {task.task_id: agent.agent_id}


async def test_an_agent_that_claims_over_http_is_given_nothing_that_it_did_not_ask_for(
    at: Orchestrator, pool: Pool
) -> None:
    agent, old, new = Agent(slots=4), make_new_task(), make_new_task()
    await at.hears(agent)
    async with pool.acquire() as db:
        await jobs.name(db, Worker("worker", agent.agent_id))
    await at.tasks.dispatch([old], by="caller")

    done = await at.dispatch(new)

    assert (done.leased, await at.give()) == ([], {})


async def test_an_agent_that_names_no_session_gets_no_work_and_holds_up_none(at: Orchestrator) -> None:
    other, old, new = Agent(slots=1), make_new_task(), make_new_task()
    await at.reads(make_heartbeat(credit=make_credit(limit=4)))
    await at.tasks.dispatch([old], by="caller")

    done = await at.dispatch(new)
    await at.hears(other)

    assert done.leased == []
    assert await at.give() == {old.task_id: other.agent_id}


# Tasks that go to nobody, and hold up no other


async def test_a_task_that_its_key_holds_back_holds_up_no_other(at: Orchestrator) -> None:
    agent, key = Agent(slots=1), {"concurrency_key": "pulls", "concurrency_limit": 1}
    goes, waits = make_new_task(**key), make_new_task(**key, priority=5)
    for task in (goes, waits):
        await at.tasks.dispatch([task], by="caller")
    await at.hears(agent)

    assert await at.give() == {goes.task_id: agent.agent_id}


async def test_a_task_that_has_waited_too_long_holds_up_no_other(at: Orchestrator, pool: Pool) -> None:
    agent, late, goes = Agent(slots=1), make_new_task(priority=5, expires_after=timedelta(minutes=1)), make_new_task()
    await at.tasks.dispatch([late, goes], by="caller")
    await let_pass(pool, late.task_id)
    await at.hears(agent)

    assert await at.give() == {goes.task_id: agent.agent_id}


async def test_what_those_who_ask_refused_just_now_is_not_chosen_for_them(at: Orchestrator, pool: Pool) -> None:
    refused, other = make_new_task(priority=5), make_new_task()
    await at.tasks.dispatch([refused, other], by="caller")

    async with pool.acquire() as db:
        found = await waiting_queries.waiting(db, {Line("infra", "echo", ""): 2}, besides=[refused.task_id])

    assert ids(*found) == [other.task_id]
