"""Placement constraints are kept as long as tasks wait with them."""

import asyncio
from typing import Any

import pytest

from orchestrator.database.pool import Pool
from orchestrator.placement import queries as placement
from orchestrator.tasks import queries as tasks
from orchestrator.tasks.model import NewTask
from tests.factories import make_new_task
from tests.integration.orchestrator.at_once import meanwhile
from tests.integration.orchestrator.on_credit import Agent, Orchestrator
from tests.integration.orchestrator.test_plain import before

AGE = "UPDATE aim SET used_at = used_at - interval '2 days'"


def needs_a_gpu() -> NewTask:
    return make_new_task(hints={"required_capabilities": {"gpu_memory_gb": 16}})


async def let_a_day_pass(pool: Pool) -> None:
    async with pool.acquire() as db:
        await db.execute(AGE)


async def forget(pool: Pool) -> None:
    async with pool.acquire() as db:
        await placement.forget(db)


async def known(pool: Pool) -> int:
    async with pool.acquire() as db:
        count: int = await db.fetchval("SELECT count(*) FROM aim")
    return count


async def test_a_placement_constraint_is_forgotten_when_no_task_waits_with_it_and_not_before(
    at: Orchestrator, pool: Pool
) -> None:
    suitable, other = Agent(slots=1, labels={"gpu_memory_gb": 24}), Agent(slots=9)
    task, cancelled = needs_a_gpu(), make_new_task(hints={"required_capabilities": {"zone": "eu"}})
    await at.tasks.dispatch([task, cancelled], by="caller")
    await at.tasks.cancel(cancelled.task_id, by="caller")
    await forget(pool)
    of_today = await known(pool)
    await let_a_day_pass(pool)

    await forget(pool)

    assert (of_today, await known(pool)) == (2, 1)
    await at.hears(suitable, other)
    assert await at.give() == {task.task_id: suitable.agent_id}


async def test_a_placement_constraint_that_a_task_is_stored_with_is_not_forgotten_meanwhile(
    at: Orchestrator, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    suitable, earlier, task = Agent(slots=1, labels={"gpu_memory_gb": 24}), needs_a_gpu(), needs_a_gpu()
    await at.tasks.dispatch([earlier], by="caller")
    await at.tasks.cancel(earlier.task_id, by="caller")
    await let_a_day_pass(pool)
    rivals: list[asyncio.Task[Any]] = []

    async def forget_meanwhile() -> None:
        rivals.append(await meanwhile(pool, forget(pool)))

    before(monkeypatch, tasks, "insert", forget_meanwhile)
    await at.tasks.dispatch([task], by="caller")
    await asyncio.gather(*rivals)

    await at.hears(suitable)
    assert await at.give() == {task.task_id: suitable.agent_id}
