"""Every way to pick a task uses one order: a task of low priority that has waited long goes before newer ones."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.database.pool import Pool
from orchestrator.jobs import queries as jobs
from orchestrator.jobs.model import Choice
from orchestrator.leases.service import LeaseService
from orchestrator.outbox import queries as outbox
from orchestrator.placement import queries as placement
from orchestrator.placement.model import Line
from orchestrator.tasks.model import NewTask
from orchestrator.tasks.service import TaskService
from orchestrator.why import queries as why
from tests.factories import make_new_task, make_result
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.conftest import AGEING
from tests.integration.orchestrator.ledger import age

MONTH = timedelta(days=30)
TTL = timedelta(seconds=30)


async def dispatched(tasks: TaskService, pool: Pool, **values: Any) -> NewTask:
    """Store a task of priority 1 that is a month old beside three new ones of priority 2; return the old one."""
    old = make_new_task(priority=1, **values)
    await tasks.dispatch([make_new_task(priority=2, **values), old], by="caller")
    await age(pool, old.task_id, MONTH)
    await tasks.dispatch([make_new_task(priority=2, **values) for _ in range(2)], by="caller")
    return old


async def test_the_relay_publishes_the_oldest_first_whatever_its_priority(tasks: TaskService, pool: Pool) -> None:
    old = await dispatched(tasks, pool)

    async with pool.acquire() as db:
        [first], _ = await outbox.take_tickets(db, ["infra"], window=1, ttl=TTL, ageing=AGEING)

    assert first.body["payload"]["task_id"] == str(old.task_id)
    assert first.urgency == 5


async def test_a_claim_in_advance_gets_the_oldest_first_whatever_its_priority(tasks: TaskService, pool: Pool) -> None:
    old = await dispatched(tasks, pool)

    async with pool.acquire() as db:
        [first] = await outbox.best_due(db, "infra", limit=1, work_types=["echo"])

    assert first.task_id == old.task_id


async def test_placement_gives_the_oldest_first_whatever_its_priority(tasks: TaskService, pool: Pool) -> None:
    old = await dispatched(tasks, pool, hints={"required_capabilities": {"gpu": True}})
    assert old.aimed_at is not None
    line = Line(old.aimed_at.recipient, "echo")

    async with pool.acquire() as db, db.transaction():
        [first] = await placement.take(db, {line: 1}, ageing=AGEING)

    assert first.body["payload"]["task_id"] == str(old.task_id)


async def test_a_claim_over_http_gets_the_oldest_first_whatever_its_priority(tasks: TaskService, pool: Pool) -> None:
    old = await dispatched(tasks, pool)

    async with pool.acquire() as db, db.transaction():
        first = await jobs.choose(db, Choice("infra", None, frozenset({""})), 1, besides=())

    assert first == [old.task_id]


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

    assert await _with_ticket(pool) == [old.task_id]
    assert explained is not None
    assert explained.ahead == 0


async def test_a_lower_limit_takes_the_place_of_the_newest_first_whatever_its_priority(
    tasks: TaskService, pool: Pool
) -> None:
    old = await dispatched(tasks, pool, concurrency_key="pulls", concurrency_limit=4)

    await tasks.dispatch([make_new_task(concurrency_key="pulls", concurrency_limit=1, priority=2)], by="caller")

    assert await _with_ticket(pool) == [old.task_id]


@pytest.mark.parametrize("precedence", [-(2**63), -5, 0, 5, 2**63 - 1])
async def test_the_bus_and_http_order_a_job_alike_however_far_its_priority_is_from_the_five(
    tasks: TaskService, pool: Pool, precedence: int
) -> None:
    """The precedence of a job is any whole number; the bus knew only the five priorities before."""
    job = make_new_task(priority=max(1, min(5, precedence + 3)), precedence=precedence)
    await tasks.dispatch([make_new_task(priority=1), job, make_new_task(priority=5)], by="caller")

    async with pool.acquire() as db, db.transaction():
        over_http = await jobs.choose(db, Choice("infra", None, frozenset({""})), 3, besides=())
        over_the_bus = await outbox.best_due(db, "infra", limit=3, work_types=["echo"])

    assert over_http == [due.task_id for due in over_the_bus]
    assert over_http.index(job.task_id) == (0 if precedence > 2 else 1 if precedence > -3 else 2)


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


async def _with_ticket(pool: Pool) -> list[UUID]:
    async with pool.acquire() as db:
        return [row["task_id"] for row in await db.fetch("SELECT task_id FROM outbox WHERE kind = 'ticket'")]
