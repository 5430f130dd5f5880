"""All SQL about jobs and the workers that take them over HTTP."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from common.messages import Resources
from orchestrator.database.pool import Connection
from orchestrator.jobs.model import OwnAttempt, Registered, Worker

NOW = "SELECT now()"
# A task has a claim while it runs.
HELD = """
    SELECT task_id, agent_id, claim_id
      FROM task
     WHERE claim_id IS NOT NULL AND agent_id = ANY($1::uuid[])
       AND (agent_id, claim_id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))
"""

# Leases of workers that speak HTTP. While the orchestrator was away nobody could renew, so that one which began before
# it came back is left alone for a while.
EXPIRED = """
    SELECT task.task_id
      FROM task
      JOIN agent ON agent.agent_id = task.agent_id AND agent.worker_id IS NOT NULL
     WHERE task.status = 'running' AND task.lease_expires_at < now()
       AND (task.started_at > $1::timestamptz OR now() > $1::timestamptz + $2::interval)
     ORDER BY task.lease_expires_at LIMIT $3
"""

ATTEMPT = """
    SELECT task_id, number, agent_id, outcome, output_bytes IS NOT NULL AS stop_reported
      FROM attempt WHERE task_id = $1 AND number = $2
"""

CANCELLED = """
    SELECT task_id, number
      FROM attempt
     WHERE task_id = ANY($2::uuid[]) AND agent_id = $1 AND outcome = 'cancelled' AND output_bytes IS NULL
     ORDER BY task_id
"""

SEEN = """
    INSERT INTO agent (agent_id, agent_type, status, hostname, version, work_types, slots, current_tasks, resources,
                       started_at, labels, worker_id)
    VALUES ($1, $2, 'online', $3, '', $4, 1, '{}', $5, now(), $6, $3)
        ON CONFLICT (agent_id) DO UPDATE
       SET last_heartbeat_at = now(), worker_id = coalesce(agent.worker_id, excluded.worker_id),
           labels = CASE WHEN $7 THEN excluded.labels ELSE agent.labels END,
           status = CASE WHEN agent.status = 'offline' THEN 'online' ELSE agent.status END,
           draining = agent.draining AND agent.status <> 'offline'
 RETURNING (xmax = 0) AS is_new
"""

NAME = "UPDATE agent SET worker_id = $2 WHERE agent_id = $1 AND worker_id IS DISTINCT FROM $2"

# One that may have no work, now or ever, gets none.
WORKERS = """
    SELECT agent_id, agent_type, labels, agent_may_work(agent_id) = 'trial' AS on_trial
      FROM agent
     WHERE agent_id = ANY($1::uuid[]) AND agent_may_work(agent_id) IN ('free', 'trial')
"""

NAMES = "SELECT agent_id, coalesce(worker_id, agent_id::text) AS name FROM agent WHERE agent_id = ANY($1::uuid[])"


async def now(db: Connection) -> datetime:
    """Return the time of the transaction, by the database's clock."""
    time: datetime = await db.fetchval(NOW)
    return time


async def held(db: Connection, claims: Collection[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], UUID]:
    """Return the running tasks that these claims, by (agent_id, claim_id), got before."""
    rows = await db.fetch(HELD, [agent_id for agent_id, _ in claims], [claim_id for _, claim_id in claims])
    return {(row["agent_id"], row["claim_id"]): row["task_id"] for row in rows}


async def expired(db: Connection, *, since: datetime, grace: timedelta, limit: int) -> list[UUID]:
    """Return tasks of HTTP workers whose lease ran out; this orchestrator has listened `since` then."""
    return [row["task_id"] for row in await db.fetch(EXPIRED, since, grace, limit)]


async def attempt(db: Connection, task_id: UUID, number: int) -> OwnAttempt | None:
    """Return an attempt; None when there is none of that number."""
    row = await db.fetchrow(ATTEMPT, task_id, number)
    return None if row is None else OwnAttempt(**row)


async def cancelled(db: Connection, agent_id: UUID, task_ids: Sequence[UUID]) -> list[tuple[UUID, int]]:
    """Return (task_id, attempt) of those that were cancelled while this worker ran them, and that it may still run."""
    return [(row["task_id"], row["number"]) for row in await db.fetch(CANCELLED, agent_id, list(task_ids))]


async def seen(
    db: Connection,
    worker: Worker,
    *,
    pool: str,
    types: Sequence[str],
    labels: Mapping[str, Any],
    has_said_labels: bool,
) -> bool:
    """Note that a worker is there; return whether it is new.

    `labels` replace those of a known worker only if it said some.
    """
    nothing = Resources(cpu_percent=0, memory_percent=0).model_dump()
    is_new: bool = await db.fetchval(
        SEEN, worker.agent_id, pool, worker.name, list(types), nothing, dict(labels), has_said_labels
    )
    return is_new


async def name(db: Connection, worker: Worker) -> None:
    """Note what a registered worker calls itself."""
    await db.execute(NAME, worker.agent_id, worker.name)


async def workers(db: Connection, agent_ids: Collection[UUID]) -> dict[UUID, Registered]:
    """Return registered workers that may have work."""
    rows = await db.fetch(WORKERS, list(agent_ids))
    return {row["agent_id"]: Registered(row["agent_type"], row["labels"], row["on_trial"]) for row in rows}


async def names(db: Connection, agent_ids: Collection[UUID]) -> dict[UUID, str]:
    """Return what agents call themselves: a worker its own word, any other its id."""
    return {row["agent_id"]: row["name"] for row in await db.fetch(NAMES, list(agent_ids))}
