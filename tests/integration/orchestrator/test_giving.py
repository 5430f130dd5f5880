"""Work goes to agents that asked for it: at once when one has credit, and else when one gets some."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.lifecycle import Status
from common.messages import AgentStatus, ResultStatus
from common.policy.model import ApprovalDemand, Effect, Ruling
from orchestrator.database.pool import Pool, open_pool
from orchestrator.dispatch.queries import STORE_FEW
from orchestrator.events.model import Kind
from orchestrator.registry.rules import BreakerPolicy
from orchestrator.tasks.dispatch import IdempotencyConflict
from orchestrator.tasks.model import Identity, NewTask, Task
from tests.factories import make_heartbeat, make_new_task, make_result
from tests.integration.ledger import lease_to, register
from tests.integration.orchestrator.ledger import age, kinds_of
from tests.integration.orchestrator.on_credit import LEASE, Agent, Orchestrator, agents_of
from tests.integration.orchestrator.test_shut_out import disable, named

CLAIMED = [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]
PLANS = "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement = $1"
ACCOUNT = "SELECT credit_limit, granted, lost, credit_number FROM agent WHERE agent_id = $1"


@pytest.fixture
def at(pool: Pool) -> Orchestrator:
    return Orchestrator(pool)


async def account(pool: Pool, agent: Agent) -> dict[str, int]:
    async with pool.acquire() as db:
        return dict(await db.fetchrow(ACCOUNT, agent.agent_id))


async def statuses(at: Orchestrator, *tasks: NewTask) -> list[Status]:
    return [(await at.tasks.get(task.task_id)).status for task in tasks]


def ids(*tasks: Task | NewTask) -> list[UUID]:
    return [task.task_id for task in tasks]


# New work


async def test_new_work_goes_at_once_to_an_agent_with_credit(at: Orchestrator, pool: Pool) -> None:
    agent = Agent(slots=2)
    await at.hears(agent)
    work = [make_new_task(), make_new_task(), make_new_task()]

    done = await at.dispatch(*work)

    assert [(lease.task.task_id, lease.agent_id, lease.attempt, lease.fence) for lease in done.leased] == [
        (work[0].task_id, agent.agent_id, 1, 1),
        (work[1].task_id, agent.agent_id, 1, 1),
    ]
    assert {(lease.claim_id, lease.lease, lease.credit) for lease in done.leased} == {(agent.session, LEASE, 1)}
    assert done.waits
    assert await statuses(at, *work) == [Status.RUNNING, Status.RUNNING, Status.PENDING]
    assert await kinds_of(pool, work[0].task_id) == CLAIMED
    assert [isinstance(answer, Identity) and answer.task_id for answer in done.answers] == ids(*work)


async def test_the_most_urgent_of_new_work_goes_at_once(at: Orchestrator) -> None:
    agent, normal, urgent = Agent(slots=1), make_new_task(), make_new_task(priority=5)
    await at.hears(agent)

    done = await at.dispatch(normal, urgent)

    assert agents_of(done.leased) == {urgent.task_id: agent.agent_id}


async def test_what_was_dispatched_before_is_answered_the_same_and_leased_once(at: Orchestrator, pool: Pool) -> None:
    agent, task = Agent(slots=2), make_new_task()
    await at.hears(agent)
    first = await at.dispatch(task)

    again = await at.dispatch(task)

    assert again.answers == first.answers
    assert again.leased == []
    assert await kinds_of(pool, task.task_id) == CLAIMED
    assert (await account(pool, agent))["granted"] == 1


async def test_the_same_twice_in_one_call_is_leased_once(at: Orchestrator, pool: Pool) -> None:
    task = make_new_task()
    await at.hears(Agent(slots=2))

    done = await at.dispatch(task, task)
    await at.give()

    assert done.answers[0] == done.answers[1]
    assert await kinds_of(pool, task.task_id) == CLAIMED


async def test_an_id_that_is_taken_by_other_work_conflicts_and_the_others_are_stored(at: Orchestrator) -> None:
    task, other = make_new_task(), make_new_task()
    await at.hears(Agent(slots=3))
    await at.dispatch(task)

    done = await at.dispatch(make_new_task(task_id=task.task_id, parameters={"message": "bye"}), other)

    assert isinstance(done.answers[0], IdempotencyConflict)
    assert list(agents_of(done.leased)) == [other.task_id]


async def test_many_callers_at_once_lease_each_task_once(at: Orchestrator, pool: Pool) -> None:
    await at.hears(Agent(slots=40))
    made = [make_new_task() for _ in range(20)]

    done = await asyncio.gather(*(at.dispatch(task) for task in made * 2))

    leased = [lease.task.task_id for one in done for lease in one.leased]
    assert sorted(leased) == sorted(ids(*made))
    for task in made:
        assert await kinds_of(pool, task.task_id) == CLAIMED


@pytest.mark.parametrize("values", [{"ordering_key": "a"}, {"concurrency_key": "a", "concurrency_limit": 1}], ids=str)
async def test_keys_are_respected_by_the_work_that_goes(at: Orchestrator, values: dict[str, Any]) -> None:
    agent, tasks = Agent(slots=3), [make_new_task(**values) for _ in range(3)]
    await at.hears(agent)

    done = await at.dispatch(*tasks)
    assert done.leased == []
    assert done.waits
    for number, task in enumerate(tasks, 1):
        assert await at.give() == {task.task_id: agent.agent_id}, "one at a time"
        await agent.reports(at, make_result(task.task_id, agent.agent_id))
        assert (await at.tasks.get(task.task_id)).status is Status.COMPLETED, number


async def test_what_was_stored_goes_its_way_when_others_of_the_same_call_cannot_be(
    at: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> Any:
        raise OSError("no space left")

    monkeypatch.setattr(at.tasks, "dispatch", full)
    await at.hears(Agent())
    plain, keyed = make_new_task(), make_new_task(ordering_key="a")

    done = await at.dispatch(plain, keyed)

    assert list(agents_of(done.leased)) == [plain.task_id]
    assert isinstance(done.answers[0], Identity)
    assert isinstance(done.answers[1], OSError)
    with pytest.raises(OSError, match="no space"):
        await at.dispatch(make_new_task(ordering_key="b"))


async def test_postgresql_keeps_the_plan_that_stores_few_tasks(ledger_url: str) -> None:
    async with open_pool(ledger_url, connections=1) as pool:
        at = Orchestrator(pool)
        await at.hears(Agent(slots=8))
        for _ in range(8):
            assert (await at.dispatch(make_new_task())).leased
        async with pool.acquire() as db:
            plans = await db.fetchrow(PLANS, STORE_FEW)

    assert plans is not None
    # Five are made for the values at hand before PostgreSQL compares.
    assert (plans["custom_plans"], plans["generic_plans"]) == (5, 3)


# What waits


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
    assert (again.attempt, again.fence, again.not_before) == (2, 2, None)


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


# Who gets nothing

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


# The account of credit


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
