"""All SQL about the snapshot: reading only, through indexes of what waits and runs."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime

import asyncpg

from orchestrator.database.pool import Connection
from orchestrator.ops.model import Holder, Pool

NOW = "SELECT now()"

POOLS = """
    SELECT agent_type, aim, priority, count(*) FILTER (WHERE coalesce(not_before <= now(), true)) AS ready,
           count(*) FILTER (WHERE not_before > now()) AS retries,
           extract(epoch FROM now() - min(created_at))::float8 AS oldest_seconds
      FROM (SELECT agent_type, aim, priority, not_before, created_at FROM task
             WHERE status = 'pending' AND admitted AND not_before IS NULL
             UNION ALL
            SELECT agent_type, aim, priority, not_before, created_at FROM task
             WHERE status = 'pending' AND admitted AND not_before IS NOT NULL) AS waiting
     GROUP BY agent_type, aim, priority
     ORDER BY agent_type, aim, priority DESC
"""

HELD = """
    SELECT (SELECT count(*) FROM task
             WHERE ordering_key IS NOT NULL AND status IN ('awaiting_approval', 'pending', 'running')
               AND status = 'pending' AND NOT admitted)
         + (SELECT count(*) FROM task
             WHERE concurrency_key IS NOT NULL AND status = 'pending' AND first_in_order AND NOT admitted
               AND ordering_key IS NULL)
"""

LEASES = """
    SELECT busy.agent_id, coalesce(agent.worker_id, agent.hostname, busy.agent_id::text) AS name, busy.running,
           busy.next_lease_ends_at
      FROM (SELECT agent_id, count(*) AS running, min(lease_expires_at) AS next_lease_ends_at
              FROM task WHERE status = 'running' GROUP BY agent_id) AS busy
      LEFT JOIN agent USING (agent_id)
     ORDER BY name, busy.agent_id
"""

DEAD_LETTERS = "SELECT kind, count(*) AS letters FROM dead_letter WHERE state = 'waiting' GROUP BY kind ORDER BY kind"


async def now(db: Connection) -> datetime:
    """Return the time of the snapshot, by the database's clock."""
    time: datetime = await db.fetchval(NOW)
    return time


async def pools(db: Connection) -> list[Pool]:
    """Return what waits, for each pool and for each aim."""
    lines: dict[tuple[str, str], list[asyncpg.Record]] = defaultdict(list)
    for row in await db.fetch(POOLS):
        lines["" if row["aim"] else row["agent_type"], row["aim"]].append(row)
    return [_pool(pool, aim, rows) for (pool, aim), rows in lines.items()]


async def held_by_keys(db: Connection) -> int:
    """Return how many tasks wait for others of their keys."""
    held: int = await db.fetchval(HELD)
    return held


async def leases(db: Connection) -> list[Holder]:
    """Return who runs how much."""
    return [Holder(**row) for row in await db.fetch(LEASES)]


async def dead_letters(db: Connection) -> dict[str, int]:
    """Return how many dead letters of each kind wait for somebody."""
    return {row["kind"]: row["letters"] for row in await db.fetch(DEAD_LETTERS)}


def _pool(pool: str, aim: str, rows: Sequence[asyncpg.Record]) -> Pool:
    by_priority: Counter[int] = Counter()
    for row in rows:
        by_priority[row["priority"]] += row["ready"]
    return Pool(
        pool=pool,
        aim=aim,
        by_priority={priority: ready for priority, ready in by_priority.items() if ready},
        retries=sum(row["retries"] for row in rows),
        oldest_seconds=max((row["oldest_seconds"] for row in rows), default=None),
    )
