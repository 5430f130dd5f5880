"""Every way to pick a task uses one order: a task of low priority that has waited long goes before newer ones."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.database.pool import Pool
from orchestrator.leases import waiting_queries
from orchestrator.leases.model import Asker, Line
from orchestrator.leases.service import LeaseService
from orchestrator.tasks.model import NewTask
from orchestrator.tasks.service import TaskService
from orchestrator.why import queries as why
from tests.factories import make_new_task, make_result
from tests.integration.ledger import lease_to, register
from tests.integration.orchestrator.ledger import age
from tests.integration.orchestrator.on_credit import LEASE, Agent, Orchestrator, gets

MONTH = timedelta(days=30)
WORKER = """
    INSERT INTO agent (agent_id, agent_type, status, hostname, version, work_types, slots, current_tasks, resources,
                       started_at, worker_id)
    VALUES ($1, 'infra', 'online', 'worker', '', '{}', 1, '{}', '{}', now(), 'worker')
"""


async def dispatched(tasks: TaskService, pool: Pool, **values: Any) -> NewTask:
    """Store a task of priority 1 that is a month old beside three new ones of priority 2; return the old one."""
    old = make_new_task(priority=1, **values)
    await tasks.dispatch([make_new_task(priority=2, **values), old], by="caller")
    await age(pool, old.task_id, MONTH)
    await tasks.dispatch([make_new_task(priority=2, **values) for _ in range(2)], by="caller")
    return old


async def test_an_agent_with_credit_gets_the_oldest_first_whatever_its_priority(tasks: TaskService, pool: Pool) -> None:
    old, agent_id = await dispatched(tasks, pool), uuid4()
    await register(pool, agent_id)

    assert await gets(pool, agent_id) == [old.task_id]


async def test_work_that_is_placed_goes_the_oldest_first_whatever_its_priority(tasks: TaskService, pool: Pool) -> None:
    old = await dispatched(tasks, pool, hints={"required_capabilities": {"gpu": True}})
    able = Agent(labels={"gpu": True})
    await Orchestrator(pool).hears(able)

    assert await gets(pool, able.agent_id) == [old.task_id]


async def test_a_claim_over_http_gets_the_oldest_first_whatever_its_priority(tasks: TaskService, pool: Pool) -> None:
    old = await dispatched(tasks, pool)

    assert await over_http(pool, 1) == [old.task_id]


async def over_http(pool: Pool, count: int) -> list[UUID]:
    """Return the first tasks that claims over HTTP get, one after another."""
    one, got = Orchestrator(pool), list[UUID]()
    async with pool.acquire() as db:
        await db.execute(WORKER, agent_id := uuid4())
    for _ in range(count):
        given = await one.giving.to([Asker(agent_id, "infra", uuid4(), 1, LEASE)])
        got += [leased.task.task_id for leased in given.leased]
    return got


async def test_a_concurrency_key_admits_the_oldest_first_whatever_its_priority(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    key: dict[str, Any] = {"concurrency_key": "pulls", "concurrency_limit": 1}
    running = make_new_task(**key)
    await tasks.dispatch([running], by="caller")
    agent_id = uuid4()
    await lease_to(pool, running.task_id, agent_id=agent_id)
    old = await dispatched(tasks, pool, **key)
    async with pool.acquire() as db:
        explained = await why.limit(db, old.task_id)

    await leases.accept([make_result(running.task_id, agent_id)])

    assert await _waiting(pool) == [old.task_id]
    assert explained is not None
    assert explained.ahead == 0


async def test_a_lower_limit_takes_the_place_of_the_newest_first_whatever_its_priority(
    tasks: TaskService, pool: Pool
) -> None:
    old = await dispatched(tasks, pool, concurrency_key="pulls", concurrency_limit=4)

    await tasks.dispatch([make_new_task(concurrency_key="pulls", concurrency_limit=1, priority=2)], by="caller")

    assert await _waiting(pool) == [old.task_id]


@pytest.mark.parametrize("precedence", [-(2**63), -5, 0, 5, 2**63 - 1])
async def test_the_bus_and_http_order_a_job_alike_however_far_its_priority_is_from_the_five(
    tasks: TaskService, pool: Pool, precedence: int
) -> None:
    """The precedence of a job is any whole number; the bus knew only the five priorities before."""
    job = make_new_task(priority=max(1, min(5, precedence + 3)), precedence=precedence)
    await tasks.dispatch([make_new_task(priority=1), job, make_new_task(priority=5)], by="caller")

    async with pool.acquire() as db:
        over_the_bus = [task.task_id for task in await waiting_queries.waiting(db, {Line("infra", "echo", ""): 3})]

    http = await over_http(pool, 3)

    assert http == over_the_bus
    assert http.index(job.task_id) == (0 if precedence > 2 else 1 if precedence > -3 else 2)


async def test_a_task_that_an_older_program_stores_gets_its_rank_too(pool: Pool) -> None:
    """The old program runs beside the migrated ledger for a while, and names no rank."""
    async with pool.acquire() as db:
        await db.execute(
            "INSERT INTO task (task_id, request_id, trace_id, work_type, agent_type, parameters, hints, content_digest,"
            " priority, precedence, idempotent, max_attempts, status, created_at) VALUES (gen_random_uuid(),"
            " gen_random_uuid(), gen_random_uuid(), 'echo', 'infra', '{}', '{}', '', 5, 2, false, 1, 'pending', $1)",
            (at := await db.fetchval("SELECT now() - interval '1 day'")),
        )
        rank = await db.fetchval("SELECT rank FROM task")

    assert rank == at - 5 * timedelta(minutes=10)


async def _waiting(pool: Pool) -> list[UUID]:
    async with pool.acquire() as db:
        return [
            row["task_id"] for row in await db.fetch("SELECT task_id FROM task WHERE status = 'pending' AND admitted")
        ]
