"""All SQL about the audit log."""

from collections.abc import AsyncIterator

import asyncpg

from orchestrator.audit.model import End, Row
from orchestrator.database.pool import Connection
from orchestrator.events.model import Event

BEGIN = "SELECT seq, hash FROM event_start ORDER BY seq DESC LIMIT 1"

HEAD = "SELECT seq, hash FROM event_head"

# The digest of each piece of output is made where it is kept, so that only events travel.
ROWS = """
    SELECT e.seq, e.at, e.kind, e.task_id, e.trace_id, e.request_id, e.agent_id, e.attempt, e.actor, e.data, e.hash,
           NULL AS text, encode(sha256(convert_to(c.text, 'UTF8')), 'hex') AS digest
      FROM event e
      LEFT JOIN output_chunk c
        ON e.kind = 'task.output' AND c.task_id = e.task_id AND c.attempt = e.attempt
       AND c.stream = e.data->>'stream' AND c.byte_offset = (e.data->>'offset')::bigint
     WHERE e.seq > $1
     ORDER BY e.seq
"""

PREFETCH = 1000


async def begin(db: Connection) -> End:
    """Return where the chain begins."""
    return _end(await db.fetchrow(BEGIN))


async def head(db: Connection) -> End:
    """Return how far the log reaches, as the ledger says."""
    return _end(await db.fetchrow(HEAD))


async def rows(db: Connection, *, after: int) -> AsyncIterator[Row]:
    """Yield the events numbered above `after`, in order, inside a transaction; few are held at a time."""
    async for row in db.cursor(ROWS, after, prefetch=PREFETCH):
        yield Row(Event.from_row(row), row["hash"], row["digest"])


def _end(row: asyncpg.Record | None) -> End:
    # Both tables hold a row from their migration on; an attacker may have emptied them.
    return End(0, b"") if row is None else End(row["seq"], row["hash"])
