"""All SQL about agents."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
from pydantic_core import to_json

from common.messages import AgentStatus, StatusUpdate
from orchestrator.database.pool import Connection
from orchestrator.registry.model import Agent, Known, Room, Standing
from orchestrator.registry.rules import labels_of_agent

# How many more tasks an agent takes: those that its session may have been granted, less those that it was granted and
# that came to it or may still come.
ROOM = "agent.credit_limit + agent.lost - agent.granted"
ROOM_COLUMNS = f"agent.agent_id, {ROOM} AS room, agent.credit_number AS credit, agent.granted"


def credit_taken_in(said: str) -> str:
    """Return the assignments that take in what the same session says of its credit; `said` has it, and is joined."""
    return f"""
           credit_number = greatest(agent.credit_number, {said}.credit_number),
           credit_limit = greatest(agent.credit_limit, {said}.credit_limit),
           granted = greatest(agent.granted, {said}.received),
           -- A grant that came after all was not lost.
           lost = greatest(least(agent.lost, agent.granted - {said}.received), 0)"""


REGISTERED = """
    SELECT agent.agent_id, agent.status, agent.started_at, agent.paused_until, agent.paused_by, agent.pause_note,
           agent.draining, agent.drain_note, agent.failures_in_row, agent.tripped_until, agent.trip_reason,
           agent.clock_off_by, agent.boot_id, agent.boot_before, agent.boot_refused,
           principal.disabled_at IS NOT NULL AS shut_out
      FROM agent LEFT JOIN principal ON principal.agent_id = agent.agent_id
     WHERE agent.agent_id = ANY($1::uuid[])
"""

# Who was shut out before it ever registered, too.
SHUT_OUT = """
    SELECT agent_id, 'offline' AS status, disabled_at AS started_at, NULL AS paused_until, NULL AS paused_by,
           NULL AS pause_note, false AS draining, NULL AS drain_note, 0 AS failures_in_row, NULL AS tripped_until,
           NULL AS trip_reason, NULL::interval AS clock_off_by, NULL::uuid AS boot_id, NULL::uuid AS boot_before,
           NULL::uuid AS boot_refused, true AS shut_out
      FROM principal
     WHERE agent_id = ANY($1::uuid[]) AND disabled_at IS NOT NULL
       AND NOT EXISTS (SELECT FROM agent WHERE agent.agent_id = principal.agent_id)
"""

STANDINGS = REGISTERED + " UNION ALL " + SHUT_OUT

# Rows are always locked in the order of their ids, and after the tasks, so that nobody waits in a circle.
IN_ORDER = " ORDER BY agent.agent_id FOR UPDATE OF agent"
LOCK = SHUT_OUT + " UNION ALL SELECT * FROM (" + REGISTERED + IN_ORDER + ") AS locked"  # noqa: S608 - constants only

# Most results are well and find a row of failures that is empty: those need no lock.
LOCK_FOR_BREAKER = REGISTERED + " AND (agent.failures_in_row > 0 OR agent.agent_id = ANY($2::uuid[]))" + IN_ORDER

# The identity knows the pool of an agent that enrolled; of any other, the row that its first heartbeat made.
KNOWN = """
    SELECT wanted.agent_id, coalesce(principal.agent_type, agent.agent_type) AS agent_type, principal.labels AS pinned
      FROM unnest($1::uuid[]) AS wanted (agent_id)
      LEFT JOIN principal ON principal.agent_id = wanted.agent_id
      LEFT JOIN agent ON agent.agent_id = wanted.agent_id
     WHERE coalesce(principal.agent_type, agent.agent_type) IS NOT NULL
"""

# How far a clock is ahead, at most 1000 years: the first and the last time that can be written are infinite for
# PostgreSQL.
AHEAD = "greatest(least(new.sent_at, now() + interval '1000 years'), now() - interval '1000 years') - now()"

# A row's lists travel as JSON: PostgreSQL has no arrays of arrays of different lengths. A new process may speak through
# the broker where the one before spoke HTTP; one that still does says so again. Schemas are announced once, and kept.
# The pool is that of the first registration: of two at once that name different pools, one counts.
UPSERT = f"""
    INSERT INTO agent (agent_id, agent_type, status, hostname, version, work_types, slots, current_tasks, resources,
                       started_at, labels, clock_off_by, boot_id, schemas, credit_number, credit_limit, granted)
    SELECT new.agent_id, new.agent_type, new.status, new.hostname, new.version,
           ARRAY(SELECT jsonb_array_elements_text(new.work_types::jsonb)), new.slots,
           ARRAY(SELECT jsonb_array_elements_text(new.current_tasks::jsonb))::uuid[], new.resources, new.started_at,
           new.labels,
           CASE WHEN new.sent_at IS NULL THEN (SELECT clock_off_by FROM agent WHERE agent.agent_id = new.agent_id)
                WHEN abs(extract(epoch FROM {AHEAD})) > $15 THEN {AHEAD} END,
           new.boot_id, new.schemas, new.credit_number, new.credit_limit, new.received
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[],
                  $9::jsonb[], $10::timestamptz[], $11::jsonb[], $12::timestamptz[], $13::uuid[], $14::jsonb[],
                  $16::bigint[], $17::bigint[], $18::bigint[])
             AS new (agent_id, agent_type, status, hostname, version, work_types, slots, current_tasks, resources,
                     started_at, labels, sent_at, boot_id, schemas, credit_number, credit_limit, received)
     ORDER BY new.agent_id
        ON CONFLICT (agent_id) DO UPDATE
       SET status = excluded.status, hostname = excluded.hostname,
           version = excluded.version, work_types = excluded.work_types, slots = excluded.slots,
           current_tasks = excluded.current_tasks, resources = excluded.resources, started_at = excluded.started_at,
           labels = excluded.labels, last_heartbeat_at = now(), clock_off_by = excluded.clock_off_by,
           boot_id = excluded.boot_id,
           schemas = CASE WHEN excluded.schemas = '{{}}' THEN agent.schemas ELSE excluded.schemas END,
           boot_before = CASE WHEN agent.boot_id = excluded.boot_id THEN agent.boot_before ELSE agent.boot_id END,
           -- A session was granted at least what it received, also if the ledger has forgotten it: a process that is
           -- heard again after another one, or after its agent's row was lost.
           credit_number = CASE WHEN agent.boot_id = excluded.boot_id
                                THEN greatest(agent.credit_number, excluded.credit_number)
                                ELSE excluded.credit_number END,
           credit_limit = CASE WHEN agent.boot_id = excluded.boot_id
                               THEN greatest(agent.credit_limit, excluded.credit_limit)
                               ELSE excluded.credit_limit END,
           granted = CASE WHEN agent.boot_id = excluded.boot_id THEN greatest(agent.granted, excluded.granted)
                          ELSE excluded.granted END,
           lost = CASE WHEN agent.boot_id = excluded.boot_id THEN agent.lost ELSE 0 END,
           worker_id = CASE WHEN excluded.started_at = agent.started_at THEN agent.worker_id END
     WHERE agent.agent_type = excluded.agent_type
 RETURNING {ROOM_COLUMNS}
"""  # noqa: S608 - constants only

# What most heartbeats are: a process says the same as before, but for what changes all the time, and nothing holds it
# back. Whoever is not returned must be looked at.
BEAT = f"""
    WITH held AS MATERIALIZED (
        SELECT new.agent_id, new.status,
               ARRAY(SELECT jsonb_array_elements_text(new.current_tasks::jsonb))::uuid[] AS current_tasks,
               new.resources, new.labels, new.schemas, new.credit_number, new.credit_limit, new.received
          FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[],
                      $9::jsonb[], $10::timestamptz[], $11::jsonb[], $12::timestamptz[], $13::uuid[], $14::jsonb[],
                      $16::bigint[], $17::bigint[], $18::bigint[])
                 AS new (agent_id, agent_type, status, hostname, version, work_types, slots, current_tasks, resources,
                         started_at, labels, sent_at, boot_id, schemas, credit_number, credit_limit, received)
          JOIN agent USING (agent_id)
         WHERE agent.started_at = new.started_at AND agent.agent_type = new.agent_type
           -- That an agent runs something, the events of its tasks tell.
           AND (agent.status = new.status OR agent.status IN ('online', 'busy') AND new.status IN ('online', 'busy'))
           AND agent.hostname = new.hostname AND agent.version = new.version AND agent.slots = new.slots
           AND agent.work_types = ARRAY(SELECT jsonb_array_elements_text(new.work_types::jsonb))
           AND agent.boot_id IS NOT DISTINCT FROM new.boot_id AND agent_may_work(agent.agent_id) = 'free'
           AND (new.sent_at IS NULL OR abs(extract(epoch FROM {AHEAD})) <= $15)
         ORDER BY agent.agent_id
           FOR UPDATE OF agent
    )
    UPDATE agent
       SET status = held.status, current_tasks = held.current_tasks, resources = held.resources,
           labels = held.labels, last_heartbeat_at = now(),
           schemas = CASE WHEN held.schemas = '{{}}' THEN agent.schemas ELSE held.schemas END,{credit_taken_in("held")}
      FROM held
     WHERE agent.agent_id = held.agent_id
 RETURNING {ROOM_COLUMNS}
"""  # noqa: S608 - constants only

LIST = """
    SELECT agent_id, agent_name(agent_id) AS name, agent_type, status_now AS status, hostname, version, work_types,
           slots, current_tasks, resources, labels, schemas, started_at, last_heartbeat_at,
           CASE WHEN paused_until > now() THEN paused_until END AS paused_until,
           CASE WHEN paused_until > now() THEN paused_by END AS paused_by,
           CASE WHEN paused_until > now() THEN pause_note END AS pause_note,
           draining, drain_note,
           CASE WHEN tripped_until > now() THEN tripped_until END AS tripped_until,
           CASE WHEN tripped_until > now() THEN trip_reason END AS trip_reason,
           extract(epoch FROM clock_off_by)::float8 AS clock_off_seconds
      FROM (SELECT *, CASE WHEN last_heartbeat_at < now() - $3::interval THEN 'offline' ELSE status END AS status_now
              FROM agent) AS known
     WHERE ($1::text IS NULL OR agent_type = $1) AND ($2::text IS NULL OR status_now = $2)
       AND ($4::uuid IS NULL OR agent_id = $4)
       AND ($5::interval IS NULL OR last_heartbeat_at >= now() - $5
            AND agent_may_work(agent_id) <> 'shut_out')
     ORDER BY agent_type, name, agent_id
"""

FORGET = """
    DELETE FROM agent
     WHERE agent_id = $1 AND (status = 'offline' OR last_heartbeat_at < now() - $2::interval)
       AND NOT EXISTS (SELECT FROM task WHERE task.agent_id = $1 AND task.status = 'running')
 RETURNING agent_id
"""

LABELS = "SELECT agent_id, labels FROM agent WHERE agent_id = ANY($1::uuid[])"

IS_ONLINE = """
    SELECT EXISTS (SELECT FROM agent
                    WHERE agent_id = $1 AND status <> 'offline' AND last_heartbeat_at >= now() - $2::interval)
"""

MARK_SILENT = """
    UPDATE agent SET status = 'offline', current_tasks = '{}'
     WHERE agent_id IN (
        SELECT agent_id FROM agent
         WHERE status <> 'offline' AND last_heartbeat_at < now() - $1::interval
         ORDER BY agent_id LIMIT $2 FOR UPDATE SKIP LOCKED
     )
 RETURNING agent_id, agent_type
"""

NOW = "SELECT now()"

PAUSE = """
    UPDATE agent SET paused_until = $2, paused_by = $3, pause_note = $4 WHERE agent_id = $1
"""

DRAIN = """
    UPDATE agent SET draining = true, drained_by = $2, drain_note = $3 WHERE agent_id = $1
"""

END_DRAINS = """
    UPDATE agent SET draining = false, drained_by = NULL, drain_note = NULL WHERE agent_id = ANY($1::uuid[])
"""

RESUME = """
    UPDATE agent
       SET paused_until = NULL, paused_by = NULL, pause_note = NULL, draining = false, drained_by = NULL,
           drain_note = NULL, failures_in_row = 0, tripped_until = NULL, trip_reason = NULL
     WHERE agent_id = $1
"""

REFUSE_BOOTS = """
    UPDATE agent SET boot_refused = new.boot_id
      FROM unnest($1::uuid[], $2::uuid[]) AS new (agent_id, boot_id)
     WHERE agent.agent_id = new.agent_id
"""

SET_BREAKER = """
    UPDATE agent SET failures_in_row = new.failures, tripped_until = new.until, trip_reason = new.reason
      FROM unnest($1::uuid[], $2::smallint[], $3::timestamptz[], $4::text[]) AS new (agent_id, failures, until, reason)
     WHERE agent.agent_id = new.agent_id
"""


async def now(db: Connection) -> datetime:
    """Return the time of the transaction, by the database's clock."""
    time: datetime = await db.fetchval(NOW)
    return time


async def standings(db: Connection, agent_ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """Return how these agents stand; those that never registered are left out, unless they were shut out."""
    return {row["agent_id"]: Standing.from_row(row) for row in await db.fetch(STANDINGS, list(agent_ids))}


async def lock(db: Connection, agent_ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """Return how these agents stand, and keep others from changing it until the transaction ends."""
    return {row["agent_id"]: Standing.from_row(row) for row in await db.fetch(LOCK, list(agent_ids))}


async def lock_for_breaker(
    db: Connection, agent_ids: Sequence[UUID], *, failing: Sequence[UUID]
) -> dict[UUID, Standing]:
    """Return, locked, how those of these agents stand that failed before or do so now."""
    rows = await db.fetch(LOCK_FOR_BREAKER, list(agent_ids), list(failing))
    return {row["agent_id"]: Standing.from_row(row) for row in rows}


async def pause(db: Connection, agent_id: UUID, *, until: datetime, by: str, note: str) -> None:
    """Note that an agent gets no work until then."""
    await db.execute(PAUSE, agent_id, until, by, note)


async def drain(db: Connection, agent_id: UUID, *, by: str, note: str) -> None:
    """Note that an agent gets no more work, until a new process of it registers."""
    await db.execute(DRAIN, agent_id, by, note)


async def end_drains(db: Connection, agent_ids: Sequence[UUID]) -> None:
    """Note that agents which were drained are back."""
    if agent_ids:
        await db.execute(END_DRAINS, list(agent_ids))


async def resume(db: Connection, agent_id: UUID) -> None:
    """Note that an agent gets work again, whatever held it back."""
    await db.execute(RESUME, agent_id)


async def set_breaker(db: Connection, rows: Sequence[tuple[UUID, int, datetime | None, str | None]]) -> None:
    """Store (agent_id, failures in a row, tripped until, the last reason) of locked agents."""
    if rows:
        await db.execute(SET_BREAKER, *(list(column) for column in zip(*rows, strict=True)))


async def refuse_boots(db: Connection, boots: Mapping[UUID, UUID]) -> None:
    """Note the process of each of these locked agents whose word does not count."""
    if boots:
        await db.execute(REFUSE_BOOTS, list(boots), list(boots.values()))


async def known(db: Connection, agent_ids: Collection[UUID]) -> dict[UUID, Known]:
    """Return what never changes of these agents; those that neither enrolled nor registered are left out."""
    return {row["agent_id"]: Known.from_row(row) for row in await db.fetch(KNOWN, list(agent_ids))}


async def beat(
    db: Connection, updates: Collection[StatusUpdate], known: Mapping[UUID, Known], *, skew: timedelta
) -> list[Room]:
    """Store updates that bring no news, at most one for each agent; return the room of the agents whose they were."""
    return rooms_of(await db.fetch(BEAT, *_columns(updates, known, skew)))


async def record(
    db: Connection, updates: Collection[StatusUpdate], known: Mapping[UUID, Known], *, skew: timedelta
) -> list[Room]:
    """Store what agents say of themselves, at most one update for each agent; return their room.

    `skew`: clocks may differ so much.
    """
    return rooms_of(await db.fetch(UPSERT, *_columns(updates, known, skew)))


def rooms_of(rows: Iterable[asyncpg.Record]) -> list[Room]:
    """Find the rooms of agents (`ROOM_COLUMNS`) among the rows that a statement returned."""
    return [
        Room(row["agent_id"], row["room"], row["credit"], row["granted"]) for row in rows if row["agent_id"] is not None
    ]


def _columns(updates: Collection[StatusUpdate], known: Mapping[UUID, Known], skew: timedelta) -> tuple[Any, ...]:
    return (
        [update.agent_id for update in updates],
        [update.agent_type for update in updates],
        [update.status for update in updates],
        [update.hostname for update in updates],
        [update.version for update in updates],
        [to_json(update.work_types).decode() for update in updates],
        [update.slots for update in updates],
        [to_json(update.current_tasks).decode() for update in updates],
        [update.resources.model_dump() for update in updates],
        [update.started_at for update in updates],
        [labels_of_agent(update, known.get(update.agent_id)) for update in updates],
        [update.sent_at for update in updates],
        [update.boot_id for update in updates],
        [update.schemas for update in updates],
        skew.total_seconds(),
        [0 if update.credit is None else update.credit.number for update in updates],
        [0 if update.credit is None else update.credit.limit for update in updates],
        [0 if update.credit is None else update.credit.received for update in updates],
    )


async def labels(db: Connection, agent_ids: Collection[UUID]) -> dict[UUID, Mapping[str, Any]]:
    """Return the labels of registered agents."""
    return {row["agent_id"]: row["labels"] for row in await db.fetch(LABELS, list(agent_ids))}


async def list_agents(
    db: Connection,
    *,
    agent_type: str | None = None,
    status: AgentStatus | None = None,
    agent_id: UUID | None = None,
    offline_after: timedelta,
    gone_after: timedelta | None = None,
) -> list[Agent]:
    """Return matching agents; one that has been silent for `offline_after` counts as offline.

    Without those that have been silent for `gone_after` or were shut out, if it is given.
    """
    rows = await db.fetch(LIST, agent_type, status, offline_after, agent_id, gone_after)
    return [Agent.from_row(row) for row in rows]


async def forget(db: Connection, agent_id: UUID, *, offline_after: timedelta) -> bool:
    """Delete an agent that is offline and runs nothing; say whether it was."""
    return await db.fetchval(FORGET, agent_id, offline_after) is not None


async def is_online(db: Connection, agent_id: UUID, *, offline_after: timedelta) -> bool:
    """Say whether an agent was heard of within `offline_after`."""
    online: bool = await db.fetchval(IS_ONLINE, agent_id, offline_after)
    return online


async def mark_silent(db: Connection, *, offline_after: timedelta, limit: int) -> list[tuple[str, UUID]]:
    """Note as offline the agents that have fallen silent, and return them: (agent_type, agent_id)."""
    return [(row["agent_type"], row["agent_id"]) for row in await db.fetch(MARK_SILENT, offline_after, limit)]
