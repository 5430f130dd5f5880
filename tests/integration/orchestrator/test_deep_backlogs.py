"""However many tasks of one key wait, letting the next one go reads a few pages."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.database.pool import Pool
from orchestrator.keys import queries as keys
from orchestrator.keys.model import Limit
from orchestrator.outbox import queries as outbox

pytestmark = pytest.mark.own_ledger

AGEING = timedelta(minutes=10)
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
async def test_the_relay_takes_the_next_ticket_of_a_deep_queue_by_reading_a_few_pages(
    pool: Pool, analyzed: bool
) -> None:
    tickets = """
        INSERT INTO outbox (kind, recipient, task_id, priority, body, rank, due_at)
        SELECT 'ticket', 'infra', gen_random_uuid(), 3, '{}', now(), now() FROM generate_series(1, $1::int)
    """
    async with pool.acquire() as db:
        await db.execute(tickets, DEPTH)
        if analyzed:
            await db.execute("ANALYZE outbox")

    read = await pages_read(pool, outbox.TAKE_TICKETS, ["infra"], 1, timedelta(seconds=30), AGEING, [], [], [])

    assert read < FEW_PAGES


async def test_what_waits_for_its_key_has_no_ticket_that_the_relay_would_read(pool: Pool) -> None:
    await fill(pool, "o", None, analyzed=True)
    async with pool.acquire() as db:
        await keys.admit_in_order(db, ["o"])

        assert len(await outbox.give_missing_tickets(db)) == 1
        assert await db.fetchval("SELECT count(*) FROM outbox") == 1
