"""New work goes at once to an agent that has credit for it, and is stored once."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from common.lifecycle import Status
from orchestrator.database.pool import Pool, open_pool
from orchestrator.dispatch import queries
from orchestrator.dispatch.queries import STORE_FEW
from orchestrator.events.model import Kind
from orchestrator.tasks.dispatch import IdempotencyConflict
from orchestrator.tasks.model import Identity
from tests.factories import make_new_task, make_result
from tests.integration.orchestrator.ledger import kinds_of
from tests.integration.orchestrator.on_credit import LEASE, Agent, Orchestrator, account, agents_of, ids, statuses
from tests.integration.orchestrator.test_plain import before

CLAIMED = [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]
PLANS = "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement = $1"


async def test_new_work_goes_at_once_to_an_agent_with_credit(at: Orchestrator, pool: Pool) -> None:
    agent = Agent(slots=2)
    await at.hears(agent)
    work = [make_new_task(), make_new_task(), make_new_task()]

    done = await at.dispatch(*work)

    assert [(lease.task.task_id, lease.agent_id, lease.attempt) for lease in done.leased] == [
        (work[0].task_id, agent.agent_id, 1),
        (work[1].task_id, agent.agent_id, 1),
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


async def test_new_work_is_not_leased_to_an_agent_of_another_pool_whoever_chose_it(
    at: Orchestrator, pool: Pool
) -> None:
    agent, task = Agent(agent_type="desktop"), make_new_task()
    await at.hears(agent)

    async with pool.acquire() as db:
        stored = await queries.store(db, [task], {task.task_id: agent.agent_id}, [], lease=LEASE, ageing=LEASE)

    assert stored.claims == {task.task_id: None}
    assert await statuses(at, task) == [Status.PENDING]


@pytest.mark.parametrize("hints", [{"agent_id": str(uuid4())}, {"required_capabilities": {"gpu": 1}}], ids=list)
async def test_work_that_aims_at_certain_agents_does_not_go_to_others_at_once(
    at: Orchestrator, hints: dict[str, Any]
) -> None:
    await at.hears(Agent())

    done = await at.dispatch(make_new_task(hints=hints))

    assert (done.leased, done.waits) == ([], True)
    assert await at.give() == {}


async def test_a_dispatch_that_collided_with_that_of_another_orchestrator_is_tried_again(
    at: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def collide() -> None:
        raise asyncpg.DeadlockDetectedError("deadlock detected")

    before(monkeypatch, queries, "store", collide)

    done = await at.dispatch(make_new_task())

    assert [type(answer) for answer in done.answers] == [Identity]
