"""All SQL about the audit log."""

from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg

from orchestrator.audit.model import End, Question, Row
from orchestrator.database.pages import MOST_PAGE_BYTES, Listing
from orchestrator.database.pool import Connection
from orchestrator.events.model import Event

BEGIN = "SELECT seq, hash FROM event_start ORDER BY seq DESC LIMIT 1"

HEAD = "SELECT seq, hash FROM event_head"

HASH_AT = """
    SELECT hash FROM (SELECT seq, hash FROM event UNION ALL SELECT seq, hash FROM event_start) AS known WHERE seq = $1
"""

# The digest of each piece of output is made where it is kept, so that only events travel.
ROWS = """
    SELECT e.seq, e.at, e.kind, e.task_id, e.trace_id, e.request_id, e.agent_id, e.attempt, e.actor, e.data, e.hash,
           NULL AS text,
           CASE WHEN e.kind = 'task.output' THEN (
               SELECT encode(sha256(convert_to(c.text, 'UTF8')), 'hex')
                 FROM output_chunk c
                WHERE c.task_id = e.task_id AND c.attempt = e.attempt
                  AND c.stream = e.data->>'stream' AND c.byte_offset = (e.data->>'offset')::bigint
           ) END AS digest
      FROM event e
     WHERE e.seq > $1
     ORDER BY e.seq
"""

PREFETCH = 1000

FIRST = "SELECT coalesce((SELECT seq FROM event ORDER BY seq LIMIT 1), 0)"

# Times rise with the numbers, so halving finds the first event of a time without an index, which every event would pay.
FIRST_SINCE = """
    WITH RECURSIVE half (low, high) AS (
        SELECT $2::bigint, $3::bigint
     UNION ALL
        SELECT CASE WHEN middle.at < $1 THEN (low + high) / 2 + 1 ELSE low END,
               CASE WHEN middle.at < $1 THEN high ELSE (low + high) / 2 END
          FROM half, LATERAL (SELECT at FROM event WHERE seq = (low + high) / 2) AS middle
         WHERE low < high
    )
    SELECT max(low) FROM half
"""

ASK = """
    WITH page AS (
        SELECT e.seq, e.at, e.kind, e.task_id, e.trace_id, e.request_id, e.agent_id, e.attempt, e.actor, e.data, e.hash,
               NULL AS text
          FROM event e
         WHERE e.seq > $1 AND e.seq <= $2
           AND ($3::text IS NULL OR e.actor = $3)
           AND ($4::uuid IS NULL OR e.task_id = $4)
           AND ($5::uuid IS NULL OR e.trace_id = $5)
           AND ($6::uuid IS NULL OR e.agent_id = $6)
           AND ($7::text[] IS NULL OR e.kind = ANY($7))
           AND ($8::text IS NULL OR EXISTS (SELECT FROM task t WHERE t.task_id = e.task_id AND t.work_type = $8))
         ORDER BY e.seq
         LIMIT $9 + 1
    ), measured AS (
        SELECT *, sum(octet_length(data::text))
                      OVER (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
          FROM page
    )
    SELECT *, (SELECT count(*) FROM page) AS found
      FROM measured
     WHERE coalesce(bytes_before, 0) < $10
     ORDER BY seq
     LIMIT $9
"""


async def begin(db: Connection) -> End:
    """Return where the chain begins."""
    return _end(await db.fetchrow(BEGIN))


async def head(db: Connection) -> End:
    """Return how far the log reaches, as the ledger says."""
    return _end(await db.fetchrow(HEAD))


async def hash_at(db: Connection, seq: int) -> bytes | None:
    """Return the hash of an event, or of the begin of the chain; None when it is not there."""
    found: bytes | None = await db.fetchval(HASH_AT, seq)
    return found


async def rows(db: Connection, *, after: int) -> AsyncIterator[Row]:
    """Yield the events numbered above `after`, in order, inside a transaction; few are held at a time."""
    async for row in db.cursor(ROWS, after, prefetch=PREFETCH):
        yield Row(Event.from_row(row), row["hash"], row["digest"])


async def first_since(db: Connection, at: datetime, *, head: int) -> int:
    """Return the number of the first event that is not earlier; `head` + 1 when all are."""
    first = await db.fetchval(FIRST)
    found: int = await db.fetchval(FIRST_SINCE, at, first or head + 1, head + 1)
    return found


async def ask(
    db: Connection, question: Question, *, after: int, until: int, limit: int, most_bytes: int = MOST_PAGE_BYTES
) -> Listing[Row]:
    """Return the events above `after` and up to `until` that are wanted, whatever their time.

    There are at most `limit`, and none after those whose data have `most_bytes` together.
    """
    found = await db.fetch(
        ASK,
        after,
        until,
        question.actor,
        question.task_id,
        question.trace_id,
        question.agent_id,
        question.wanted_kinds(),
        question.work_type,
        limit,
        most_bytes,
    )
    rows = [Row(Event.from_row(row), row["hash"]) for row in found]
    return Listing(rows, has_more=bool(found) and found[0]["found"] > len(found))


def _end(row: asyncpg.Record | None) -> End:
    # Both tables hold a row from their migration on; an attacker may have emptied them.
    return End(0, b"") if row is None else End(row["seq"], row["hash"])
