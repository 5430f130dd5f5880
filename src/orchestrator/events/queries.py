"""All SQL about events."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from orchestrator.database.pages import MOST_PAGE_BYTES, Listing
from orchestrator.database.pool import Connection
from orchestrator.events.chain import entry_of
from orchestrator.events.model import Event, NewEvent

# The end of a statement that changes something and writes the events of it. Before it stand CTEs, the last of them
# `told`: the events that come of what was changed, in the order of `position`. The head row is locked after that and
# until the commit, so whoever comes next gets the next number and commits later: followers may read "seq > last" and
# miss nothing. So nothing follows in the transaction. The hash of each event covers the one before it; see chain.py.
#
# Rows of a CTE are made as they are asked for, and so are its locks. Counting asks for all of them: who only asked
# whether there is one would hold the head while the other rows of tasks are yet to be locked, a circle in the making.
WRITE = """
    head AS MATERIALIZED (SELECT seq, hash FROM event_head WHERE (SELECT count(*) FROM told) > 0 FOR UPDATE),
    locked AS MATERIALIZED (SELECT seq, hash, clock_timestamp() AS at FROM head),
    chain AS MATERIALIZED (
        SELECT seq, at, event_chain(hash, seq, at, ARRAY(SELECT leaf FROM told ORDER BY position)) AS hashes FROM locked
    ), moved AS (
        UPDATE event_head SET seq = chain.seq + cardinality(hashes), hash = hashes[cardinality(hashes)] FROM chain
    ), written AS (
        INSERT INTO event (seq, at, kind, actor, data, task_id, trace_id, request_id, agent_id, attempt, hash)
        SELECT chain.seq + new.nth, chain.at, new.kind, new.actor, new.data::jsonb,
               new.task_id, new.trace_id, new.request_id, new.agent_id, new.attempt, chain.hashes[new.nth]
          FROM chain, (SELECT *, row_number() OVER (ORDER BY position) AS nth FROM told) AS new
    )
"""

TYPES = ("text", "text", "text", "uuid", "uuid", "uuid", "uuid", "smallint", "bytea")


def told(first: int, *, of: str = "") -> str:
    """Return the CTE `told`, and `WRITE` behind it.

    `first` is the number of the first of the nine parameters that `columns` makes; `of` joins and chooses the events.
    """
    parameters = ", ".join(f"${first + place}::{type_name}[]" for place, type_name in enumerate(TYPES))
    return f"""
    told AS MATERIALIZED (
        SELECT event.*
          FROM unnest({parameters})
                 WITH ORDINALITY AS event (kind, actor, data, task_id, trace_id, request_id, agent_id, attempt, leaf,
                                           position)
          {of}
    ), {WRITE}"""  # noqa: S608 - constants only


# For what was changed before.
APPEND = "WITH " + told(1) + "SELECT"

HEAD = "SELECT seq FROM event_head"
OLDEST = "SELECT coalesce((SELECT min(seq) FROM event), (SELECT seq + 1 FROM event_head))"
# Beyond every event.
NEWEST = 2**63 - 1

# The text of an output event is kept once, in the output itself. What lies beyond the limit on bytes is not read: the
# length of a text that is stored aside is known without it.
FOLLOW = """
    WITH page AS (
        SELECT e.seq, e.at, e.kind, e.task_id, e.trace_id, e.request_id, e.agent_id, e.attempt, e.actor, e.data, c.text
          FROM event e
          LEFT JOIN output_chunk c
            ON e.kind = 'task.output' AND c.task_id = e.task_id AND c.attempt = e.attempt
           AND c.stream = e.data->>'stream' AND c.byte_offset = (e.data->>'offset')::bigint
         WHERE e.seq > $1 AND e.seq <= $2
           AND ($3::uuid IS NULL OR e.task_id = $3)
           AND ($4::uuid IS NULL OR e.trace_id = $4)
           AND ($5::uuid IS NULL OR e.agent_id = $5)
           AND ($6::text[] IS NULL OR e.kind = ANY($6))
         ORDER BY e.seq
         LIMIT $7 + 1
    ), measured AS (
        SELECT *, sum(octet_length(data::text) + coalesce(octet_length(text), 0))
                      OVER (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
          FROM page
    )
    SELECT seq, at, kind, task_id, trace_id, request_id, agent_id, attempt, actor, data, text,
           (SELECT count(*) FROM page) AS found
      FROM measured
     WHERE coalesce(bytes_before, 0) < $8
     ORDER BY seq
     LIMIT $7
"""


async def append(db: Connection, *events: NewEvent) -> None:
    """Write events; call it last in the transaction, for it makes other writers wait for the commit."""
    if events:
        await db.execute(APPEND, *columns(events))


def columns(events: Sequence[NewEvent]) -> tuple[list[Any], ...]:
    """Return the nine columns of `told`, but for the position, for a statement with `told`."""
    entries = [entry_of(event) for event in events]
    return (
        [event.kind for event in events],
        [event.actor for event in events],
        [one.data for one in entries],
        [event.task_id for event in events],
        [event.trace_id for event in events],
        [event.request_id for event in events],
        [event.agent_id for event in events],
        [event.attempt for event in events],
        [one.leaf for one in entries],
    )


async def head(db: Connection) -> int:
    """Return the number of the newest event; 0 when there is none."""
    seq: int = await db.fetchval(HEAD)
    return seq


async def oldest(db: Connection) -> int:
    """Return the number of the oldest event that is kept; that of the next event when none is kept."""
    seq: int = await db.fetchval(OLDEST)
    return seq


async def follow(
    db: Connection,
    *,
    after: int,
    until: int,
    limit: int,
    task_id: UUID | None = None,
    trace_id: UUID | None = None,
    agent_id: UUID | None = None,
    kinds: Sequence[str] | None = None,
    most_bytes: int = MOST_PAGE_BYTES,
) -> Listing[Event]:
    """Return the events numbered above `after` and up to `until` that match, oldest first.

    There are at most `limit`, and none after those that have `most_bytes` together.
    """
    wanted = list(kinds) if kinds else None
    rows = await db.fetch(FOLLOW, after, until, task_id, trace_id, agent_id, wanted, limit, most_bytes)
    return Listing([Event.from_row(row) for row in rows], has_more=bool(rows) and rows[0]["found"] > len(rows))
