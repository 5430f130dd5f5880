"""All SQL about agents."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from common.messages import AgentStatus, StatusUpdate
from orchestrator.database.pool import Connection
from orchestrator.registry.model import Agent, Before

KNOWN = """
    SELECT agent_id, status, started_at FROM agent WHERE agent_id = ANY($1::uuid[]) ORDER BY agent_id FOR UPDATE
"""

# A row's lists travel as text: PostgreSQL has no arrays of arrays of different lengths.
UPSERT = """
    INSERT INTO agent (agent_id, agent_type, status, hostname, version, work_types, slots, current_tasks, resources,
                       started_at)
    SELECT new.agent_id, new.agent_type, new.status, new.hostname, new.version,
           string_to_array(new.work_types, ','), new.slots,
           string_to_array(new.current_tasks, ',')::uuid[], new.resources, new.started_at
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[],
                  $9::jsonb[], $10::timestamptz[])
             AS new (agent_id, agent_type, status, hostname, version, work_types, slots, current_tasks, resources,
                     started_at)
     ORDER BY new.agent_id
        ON CONFLICT (agent_id) DO UPDATE
       SET agent_type = excluded.agent_type, status = excluded.status, hostname = excluded.hostname,
           version = excluded.version, work_types = excluded.work_types, slots = excluded.slots,
           current_tasks = excluded.current_tasks, resources = excluded.resources, started_at = excluded.started_at,
           last_heartbeat_at = now()
"""

LIST = """
    SELECT agent_id, agent_type, status_now AS status, hostname, version, work_types, slots, current_tasks, resources,
           started_at, last_heartbeat_at
      FROM (SELECT *, CASE WHEN last_heartbeat_at < now() - $3::interval THEN 'offline' ELSE status END AS status_now
              FROM agent) AS known
     WHERE ($1::text IS NULL OR agent_type = $1) AND ($2::text IS NULL OR status_now = $2)
     ORDER BY agent_type, hostname, agent_id
"""

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
 RETURNING agent_id
"""


async def known(db: Connection, agent_ids: Sequence[UUID]) -> dict[UUID, Before]:
    """Return what the registry holds of these agents, and lock it."""
    rows = await db.fetch(KNOWN, list(agent_ids))
    return {row["agent_id"]: Before(row["agent_id"], AgentStatus(row["status"]), row["started_at"]) for row in rows}


async def record(db: Connection, updates: Sequence[StatusUpdate]) -> None:
    """Store what agents say of themselves; at most one update for each agent."""
    await db.execute(
        UPSERT,
        [update.agent_id for update in updates],
        [update.agent_type for update in updates],
        [update.status for update in updates],
        [update.hostname for update in updates],
        [update.version for update in updates],
        [",".join(update.work_types) for update in updates],
        [update.slots for update in updates],
        [",".join(map(str, update.current_tasks)) for update in updates],
        [update.resources.model_dump() for update in updates],
        [update.started_at for update in updates],
    )


async def list_agents(
    db: Connection, *, agent_type: str | None, status: AgentStatus | None, offline_after: timedelta
) -> list[Agent]:
    """Return matching agents; one that has been silent for `offline_after` counts as offline."""
    return [Agent.from_row(row) for row in await db.fetch(LIST, agent_type, status, offline_after)]


async def is_online(db: Connection, agent_id: UUID, *, offline_after: timedelta) -> bool:
    """Say whether an agent was heard of within `offline_after`."""
    online: bool = await db.fetchval(IS_ONLINE, agent_id, offline_after)
    return online


async def mark_silent(db: Connection, *, offline_after: timedelta, limit: int) -> list[UUID]:
    """Note as offline the agents that have fallen silent, and return them."""
    return [row["agent_id"] for row in await db.fetch(MARK_SILENT, offline_after, limit)]
