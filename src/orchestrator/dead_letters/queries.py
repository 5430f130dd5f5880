"""All SQL about dead letters."""

from collections.abc import Sequence
from uuid import UUID

from common.rest.dead_letters import DeadLetterKind, DeadLetterState
from orchestrator.database.pool import Connection
from orchestrator.dead_letters.model import Letter, NewLetter

# A message that is delivered twice is noted once.
ADD = """
    INSERT INTO dead_letter (kind, message_id, queue, type, reason, body, body_bytes, priority, task_id)
    SELECT new.*
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bigint[],
                  $8::smallint[], $9::uuid[]) AS new
        ON CONFLICT (message_id) DO NOTHING
 RETURNING id, kind, message_id, queue, type, reason, ''::bytea AS body, body_bytes, length(body) AS body_kept,
           priority, task_id, at, state, settled_at, settled_by, replayed_as
"""

GET = """
    SELECT id, kind, message_id, queue, type, reason, body, body_bytes, length(body) AS body_kept, priority, task_id,
           at, state, settled_at, settled_by, replayed_as
      FROM dead_letter
     WHERE id = $1
"""

LOCK = GET + " FOR UPDATE"

LIST = """
    SELECT id, kind, message_id, queue, type, reason, ''::bytea AS body, body_bytes, length(body) AS body_kept,
           priority, task_id, at, state, settled_at, settled_by, replayed_as
      FROM dead_letter
     WHERE ($1::text IS NULL OR state = $1)
       AND ($2::text IS NULL OR kind = $2)
       AND ($3::bigint IS NULL OR id < $3)
     ORDER BY id DESC
     LIMIT $4
"""

SETTLE = """
    UPDATE dead_letter SET state = $2, settled_at = now(), settled_by = $3, replayed_as = $4
     WHERE id = $1 AND state = 'waiting'
 RETURNING id, kind, message_id, queue, type, reason, ''::bytea AS body, body_bytes, length(body) AS body_kept,
           priority, task_id, at, state, settled_at, settled_by, replayed_as
"""


async def add(db: Connection, letters: Sequence[NewLetter]) -> list[Letter]:
    """Note dead letters; return those that were not noted before."""
    if not letters:
        return []
    rows = await db.fetch(
        ADD,
        [letter.kind for letter in letters],
        [letter.message_id for letter in letters],
        [letter.queue for letter in letters],
        [letter.type for letter in letters],
        [letter.reason for letter in letters],
        [letter.body for letter in letters],
        [letter.body_bytes for letter in letters],
        [letter.priority for letter in letters],
        [letter.task_id for letter in letters],
    )
    return [Letter.from_row(row) for row in rows]


async def find(db: Connection, letter_id: int) -> Letter | None:
    """Return a dead letter with its body; None when there is none."""
    row = await db.fetchrow(GET, letter_id)
    return None if row is None else Letter.from_row(row)


async def lock(db: Connection, letter_id: int) -> Letter | None:
    """Return a dead letter with its body, and keep others from settling it until the transaction ends."""
    row = await db.fetchrow(LOCK, letter_id)
    return None if row is None else Letter.from_row(row)


async def newest(
    db: Connection, *, state: DeadLetterState | None, kind: DeadLetterKind | None, before: int | None, limit: int
) -> list[Letter]:
    """Return matching dead letters, newest first and without their bodies."""
    return [Letter.from_row(row) for row in await db.fetch(LIST, state, kind, before, limit)]


async def settle(
    db: Connection, letter_id: int, state: DeadLetterState, *, by: str, replayed_as: UUID | None = None
) -> Letter:
    """Say what became of a locked dead letter that waits."""
    row = await db.fetchrow(SETTLE, letter_id, state, by, replayed_as)
    assert row is not None
    return Letter.from_row(row)
