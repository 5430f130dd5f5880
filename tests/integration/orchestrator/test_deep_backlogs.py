"""However many tasks of one key wait, letting the next one go reads a few pages."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.database.pool import Pool
from orchestrator.keys import queries as keys
from orchestrator.keys.model import Limit
from orchestrator.leases import waiting_queries as leases
from orchestrator.leases.model import Line

pytestmark = pytest.mark.own_ledger

DEPTH = 20_000
FEW_PAGES = 120

# As many tasks as asked for, of one ordering key, of one concurrency key, or of both; the first of them are admitted.
FILL = """
    INSERT INTO task (task_id, request_id, trace_id, work_type, agent_type, parameters, hints, content_digest, priority,
                      idempotent, max_attempts, status, ordering_key, concurrency_key, first_in_order, admitted)
    SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'echo', 'infra', '{}', '{}', '', 1 + n % 5, false,
           1, 'pending', $1, $2, $1::text IS NULL, false
      FROM generate_series(1, $3::int) AS n
"""

# As many tasks that wait for nothing but an agent.
READY = """
    INSERT INTO task (task_id, request_id, trace_id, work_type, agent_type, parameters, hints, content_digest, priority,
                      idempotent, max_attempts, status, rank)
    SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'echo', 'infra', '{}', '{}', '', 1 + n % 5, false,
           1, 'pending', now() - n * interval '1 second'
      FROM generate_series(1, $1::int) AS n
"""


async def fill(pool: Pool, ordering_key: str | None, concurrency_key: str | None, *, analyzed: bool) -> None:
    async with pool.acquire() as db:
        await db.execute(FILL, ordering_key, concurrency_key, DEPTH)
        if concurrency_key is not None:
            await keys.set_limits(db, {concurrency_key: Limit(4)})
        if analyzed:
            await db.execute("ANALYZE task")


async def pages_read(pool: Pool, statement: str, *arguments: Any) -> int:
    """Run a statement, undo it, and return how many pages it touched."""
    async with pool.acquire() as db:
        undone = db.transaction()
        await undone.start()
        try:
            answer = await db.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments)
        finally:
            await undone.rollback()
    plan: Mapping[str, Any] = json.loads(answer)[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "never-analyzed"])
@pytest.mark.parametrize(("ordering_key", "concurrency_key"), [("o", None), (None, "c"), ("o", "c")], ids=str)
async def test_letting_the_next_of_a_deep_key_go_reads_a_few_pages(
    pool: Pool, ordering_key: str | None, concurrency_key: str | None, analyzed: bool
) -> None:
    await fill(pool, ordering_key, concurrency_key, analyzed=analyzed)

    assert await pages_read(pool, keys.ADMIT_IN_ORDER, ["o"]) < FEW_PAGES
    assert await pages_read(pool, keys.ADMIT_WITHIN_LIMITS, ["c"]) < FEW_PAGES
    assert await pages_read(pool, keys.CONCURRENCY_KEYS_OF_NEXT, ["o"], []) < FEW_PAGES
    assert await pages_read(pool, keys.WITHDRAW, ["c"]) < FEW_PAGES


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "never-analyzed"])
async def test_the_best_of_a_deep_line_are_found_by_reading_a_few_pages(pool: Pool, analyzed: bool) -> None:
    async with pool.acquire() as db:
        await db.execute(READY, DEPTH)
        if analyzed:
            await db.execute("ANALYZE task")

    assert await pages_read(pool, leases.LINES) < FEW_PAGES
    assert await pages_read(pool, leases.WAITING, ["infra"], ["echo"], [""], [8], []) < FEW_PAGES


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "never-analyzed"])
async def test_lines_that_nobody_takes_are_passed_over_by_reading_a_few_pages(pool: Pool, analyzed: bool) -> None:
    async with pool.acquire() as db:
        await db.execute(READY, DEPTH)
        await db.execute("UPDATE task SET work_type = 'render'")
        await db.execute(READY, 1)
        await db.execute("VACUUM task")
        if analyzed:
            await db.execute("ANALYZE task")
        lines = await leases.lines(db)

    assert {line.work_type for line in lines} == {"render", "echo"}
    assert await pages_read(pool, leases.LINES) < FEW_PAGES
    assert await pages_read(pool, leases.WAITING, ["infra"], ["echo"], [""], [8], []) < FEW_PAGES


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "never-analyzed"])
async def test_what_waits_for_its_time_is_passed_over_by_reading_a_few_pages(pool: Pool, analyzed: bool) -> None:
    async with pool.acquire() as db:
        await db.execute(READY, DEPTH)
        await db.execute("UPDATE task SET not_before = now() + interval '1 hour'")
        await db.execute("VACUUM task")
        if analyzed:
            await db.execute("ANALYZE task")

    assert await pages_read(pool, leases.LINES) < FEW_PAGES
    assert await pages_read(pool, leases.WAITING, ["infra"], ["echo"], [""], [8], []) < FEW_PAGES


async def test_what_waits_for_its_key_is_in_no_line(pool: Pool) -> None:
    await fill(pool, "o", None, analyzed=True)
    async with pool.acquire() as db:
        assert await leases.lines(db) == []
        await keys.admit_in_order(db, ["o"])

        assert await leases.lines(db) == [Line("infra", "echo", "")]
        assert len(await leases.waiting(db, {Line("infra", "echo", ""): 8})) == 1
