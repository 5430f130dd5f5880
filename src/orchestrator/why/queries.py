"""All SQL about why a task waits: reading only, in one snapshot."""

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from common.lifecycle import Status
from orchestrator.database.pool import Connection
from orchestrator.registry.model import MayWork
from orchestrator.registry.queries import ROOM
from orchestrator.why.model import AgentFacts, ApprovalFacts, LimitFacts, OrderFacts, RefusalFacts

NOW = "SELECT now()"

AGENTS = f"""
    SELECT agent.agent_id, agent_name(agent.agent_id) AS name, agent.agent_type, agent.hostname,
           agent.status <> 'offline' AND agent.last_heartbeat_at >= now() - $2::interval AS online,
           agent.last_heartbeat_at, agent.slots, coalesce(busy.running, 0) AS running,
           agent.work_types, agent.labels,
           agent.draining OR agent.status = 'draining' AS draining, agent.drained_by, agent.drain_note,
           CASE WHEN agent.paused_until > now() THEN agent.paused_until END AS paused_until,
           agent.paused_by, agent.pause_note,
           CASE WHEN agent.tripped_until > now() THEN agent.tripped_until END AS tripped_until, agent.trip_reason,
           agent.clock_off_by, agent_may_work(agent.agent_id) AS may_work,
           CASE WHEN agent.credit_number > 0 THEN {ROOM} END AS asks_for
      FROM agent
      LEFT JOIN (SELECT agent_id, count(*) AS running FROM task WHERE status = 'running' GROUP BY agent_id) AS busy
        ON busy.agent_id = agent.agent_id
     WHERE ($1::text IS NULL OR agent.agent_type = $1)
     ORDER BY name, agent.agent_id
"""  # noqa: S608 - constants only

# Its aim shares the agents of its pool with others, but only tasks of the same aim can be compared.
AHEAD = """
    SELECT (SELECT count(*) FROM task AS other
             WHERE other.status = 'pending' AND other.admitted AND other.agent_type = own.agent_type
               AND other.aim = own.aim AND other.not_before IS NULL
               AND ($2::text[] IS NULL OR other.work_type = ANY($2))
               AND (other.rank, other.dispatch_no) < (own.rank, own.dispatch_no)) AS ahead
      FROM task AS own
     WHERE own.task_id = $1 AND own.status = 'pending' AND own.admitted
"""

ORDER = """
    WITH ahead AS (
        SELECT other.task_id, other.status, other.dispatch_no
          FROM task AS own
          JOIN task AS other ON other.ordering_key = own.ordering_key AND other.dispatch_no < own.dispatch_no
         WHERE own.task_id = $1 AND other.status IN ('awaiting_approval', 'pending', 'running')
         UNION ALL
        SELECT other.task_id, other.status, other.dispatch_no
          FROM task AS own
          JOIN stopping ON stopping.ordering_key = own.ordering_key
          JOIN task AS other ON other.task_id = stopping.task_id
         WHERE own.task_id = $1
    )
    SELECT (SELECT count(*) FROM ahead) AS ahead, first.task_id AS first, first.status AS first_status
      FROM (SELECT) AS one
      LEFT JOIN (SELECT task_id, status FROM ahead ORDER BY dispatch_no LIMIT 1) AS first ON true
"""

LIMIT = """
    SELECT held.at_most AS limit,
           ARRAY(SELECT stopping.task_id FROM stopping
                  WHERE stopping.concurrency_key = own.concurrency_key ORDER BY stopping.task_id)
           || ARRAY(SELECT other.task_id FROM task AS other
                     WHERE other.concurrency_key = own.concurrency_key AND other.admitted
                       AND other.status IN ('pending', 'running')
                     ORDER BY other.rank, other.dispatch_no) AS on_the_way,
           (SELECT count(*) FROM task AS other
             WHERE other.concurrency_key = own.concurrency_key AND other.status = 'pending' AND other.first_in_order
               AND NOT other.admitted
               AND (other.rank, other.dispatch_no) < (own.rank, own.dispatch_no)) AS ahead
      FROM task AS own
      JOIN concurrency_limit AS held ON held.concurrency_key = own.concurrency_key
     WHERE own.task_id = $1
"""

APPROVAL = """
    SELECT approval_id, approvers, roles, expires_at,
           (SELECT count(*) FROM approval_vote AS vote
             WHERE vote.approval_id = approval.approval_id AND vote.yes) AS yes
      FROM approval
     WHERE task_id = $1
"""

# The last one first. What came too late (5002), or was handed back without a code, was not refused; as for
# `leases.waiting_queries.REFUSALS`.
REFUSALS = """
    SELECT last.agent_id, agent.hostname, last.times, attempt.ended_at AS at, attempt.error_message AS reason
      FROM (SELECT agent_id, count(*) AS times, max(number) AS number
              FROM earlier_attempt
             WHERE task_id = $1 AND NOT started AND error_code <> 5002
             GROUP BY agent_id) AS last
      JOIN earlier_attempt AS attempt ON attempt.task_id = $1 AND attempt.number = last.number
      LEFT JOIN agent ON agent.agent_id = last.agent_id
     ORDER BY last.number DESC
"""


async def now(db: Connection) -> datetime:
    """Return the time of the snapshot, by the database's clock."""
    time: datetime = await db.fetchval(NOW)
    return time


async def agents(db: Connection, agent_type: str | None, *, offline_after: timedelta) -> list[AgentFacts]:
    """Return every agent of a type, or of all; one that has been silent for `offline_after` is not online."""
    return [
        AgentFacts(**{**row, "may_work": MayWork(row["may_work"])})
        for row in await db.fetch(AGENTS, agent_type, offline_after)
    ]


async def ahead(db: Connection, task_id: UUID, *, types: Collection[str] | None) -> int | None:
    """Return how many tasks of these types, None for all, go before a task; None when it is not admitted."""
    count: int | None = await db.fetchval(AHEAD, task_id, None if types is None else sorted(types))
    return count


async def order(db: Connection, task_id: UUID) -> OrderFacts:
    """Return who comes before a task that has an ordering key."""
    row = await db.fetchrow(ORDER, task_id)
    assert row is not None
    first_status = None if row["first_status"] is None else Status(row["first_status"])
    return OrderFacts(row["ahead"], row["first"], first_status)


async def limit(db: Connection, task_id: UUID) -> LimitFacts | None:
    """Return who shares the limit of a task's concurrency key; None for a key without a limit."""
    row = await db.fetchrow(LIMIT, task_id)
    return None if row is None else LimitFacts(**row)


async def approval(db: Connection, task_id: UUID) -> ApprovalFacts | None:
    """Return the approval of a task; None when it has none."""
    row = await db.fetchrow(APPROVAL, task_id)
    return None if row is None else ApprovalFacts(**row)


async def refusals(db: Connection, task_id: UUID) -> list[RefusalFacts]:
    """Return the agents that gave a task back before anything of it ran, the last one first."""
    return [RefusalFacts(**row) for row in await db.fetch(REFUSALS, task_id)]
