"""All SQL about output."""

from collections.abc import Sequence
from uuid import UUID

from common.messages import Stream
from orchestrator.database.pool import Connection
from orchestrator.output.model import NewChunk, StoredChunk
from orchestrator.tasks.attempts import attempt_of

# A piece that arrives again is the same row; a piece of another agent joins no attempt.
STORE = f"""
    WITH own AS MATERIALIZED (
        SELECT new.*
          FROM unnest($1::uuid[], $2::smallint[], $3::uuid[], $4::text[], $5::bigint[], $6::int[], $7::text[])
                 AS new (task_id, attempt, agent_id, stream, byte_offset, number, text)
         CROSS JOIN {attempt_of("new.task_id", "new.attempt")} AS of_agent
         WHERE new.text <> '' AND of_agent.agent_id = new.agent_id
    ), stored AS (
        INSERT INTO output_chunk (task_id, attempt, stream, byte_offset, number, size, text)
        SELECT task_id, attempt, stream, byte_offset, number, octet_length(text), text
          FROM own
            ON CONFLICT DO NOTHING
     RETURNING task_id, attempt, stream, byte_offset, number, encode(sha256(convert_to(text, 'UTF8')), 'hex') AS digest
    )
    SELECT s.task_id, t.trace_id, t.request_id, a.agent_id, s.attempt, s.number, s.stream, s.byte_offset, s.digest
      FROM stored s
      JOIN task t USING (task_id)
      JOIN (SELECT DISTINCT task_id, attempt, agent_id FROM own) AS a ON a.task_id = s.task_id AND a.attempt = s.attempt
     ORDER BY s.task_id, s.attempt, s.number
"""  # noqa: S608 - constants only

# A piece holds at most 256 KiB, so those before the bound cannot reach into the page.
READ = """
    SELECT byte_offset, text
      FROM output_chunk
     WHERE task_id = $1 AND attempt = $2 AND stream = $3
       AND byte_offset > $4 - 262144 AND byte_offset + size > $4 AND byte_offset < $4 + $5
     ORDER BY byte_offset
"""

TAIL = """
    SELECT right(text, 16384) AS text
      FROM output_chunk WHERE task_id = $1 AND attempt = $2 ORDER BY number DESC LIMIT $3
"""

TOTAL = """
    SELECT (output_bytes->>$3)::bigint AS total, coalesce((output_dropped->>$3)::bigint, 0) AS dropped
      FROM attempt WHERE task_id = $1 AND number = $2
"""


async def store(db: Connection, chunks: Sequence[NewChunk]) -> list[StoredChunk]:
    """Store pieces and return those that were new, each task's in the order of their numbers."""
    if not chunks:
        return []
    rows = await db.fetch(
        STORE,
        [new.task_id for new in chunks],
        [new.attempt for new in chunks],
        [new.agent_id for new in chunks],
        [new.chunk.stream for new in chunks],
        [new.chunk.offset for new in chunks],
        [new.chunk.number for new in chunks],
        [new.text for new in chunks],
    )
    return [
        StoredChunk(
            row["task_id"],
            row["trace_id"],
            row["request_id"],
            row["agent_id"],
            row["attempt"],
            row["number"],
            Stream(row["stream"]),
            row["byte_offset"],
            row["digest"],
        )
        for row in rows
    ]


async def read(
    db: Connection, task_id: UUID, *, attempt: int, stream: Stream, offset: int, limit: int
) -> list[tuple[int, str]]:
    """Return (offset, text) of the pieces that overlap `limit` bytes from `offset`, in order."""
    rows = await db.fetch(READ, task_id, attempt, stream, offset, limit)
    return [(row["byte_offset"], row["text"]) for row in rows]


async def tail(db: Connection, task_id: UUID, *, attempt: int, pieces: int) -> str:
    """Return the text of the last pieces of both streams, in the order in which they were written."""
    rows = await db.fetch(TAIL, task_id, attempt, pieces)
    return "".join(row["text"] for row in reversed(rows))


async def total(db: Connection, task_id: UUID, *, attempt: int, stream: Stream) -> tuple[int | None, int]:
    """Return how many bytes of a stream an attempt sent in all (None: not known yet), and how many it dropped."""
    row = await db.fetchrow(TOTAL, task_id, attempt, stream)
    return (row["total"], row["dropped"]) if row is not None else (None, 0)
