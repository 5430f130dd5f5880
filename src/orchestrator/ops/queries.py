"""All SQL about the snapshot: reading only, through indexes of what waits and runs."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime

import asyncpg

from orchestrator.database.pool import Connection
from orchestrator.ops.model import Holder, Pool
from orchestrator.placement.model import RECIPIENT_PREFIX, pool_of

NOW = "SELECT now()"

# Whatever may run has a ticket, and its rows are numbered as they come: the first of a queue is its oldest.
POOLS = """
    SELECT line.recipient, line.priority, line.ready, line.published, line.retries,
           extract(epoch FROM now() - oldest.created_at)::float8 AS oldest_seconds
      FROM (SELECT recipient, priority, min(id) AS first,
                   count(*) FILTER (WHERE published_at IS NOT NULL OR due_at <= now()) AS ready,
                   count(*) FILTER (WHERE published_at IS NOT NULL) AS published,
                   count(*) FILTER (WHERE published_at IS NULL AND due_at > now()) AS retries
              FROM outbox WHERE kind = 'ticket'
             GROUP BY recipient, priority) AS line
      JOIN outbox ON outbox.id = line.first
      LEFT JOIN task AS oldest ON oldest.task_id = outbox.task_id
     ORDER BY line.recipient, line.priority DESC
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
    """Return what waits, for each queue."""
    lines: dict[str, list[asyncpg.Record]] = defaultdict(list)
    for row in await db.fetch(POOLS):
        lines[pool_of(row["recipient"]) or row["recipient"]].append(row)
    return [_pool(recipient, rows) for recipient, rows in lines.items()]


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


def _pool(recipient: str, rows: Sequence[asyncpg.Record]) -> Pool:
    is_aim = recipient.startswith(RECIPIENT_PREFIX)
    by_priority: Counter[int] = Counter()
    for row in rows:
        by_priority[row["priority"]] += row["ready"]
    ages = [row["oldest_seconds"] for row in rows if row["oldest_seconds"] is not None]
    return Pool(
        pool="" if is_aim else recipient,
        aim=recipient.removeprefix(RECIPIENT_PREFIX) if is_aim else "",
        by_priority={priority: ready for priority, ready in by_priority.items() if ready},
        published=sum(row["published"] for row in rows),
        retries=sum(row["retries"] for row in rows),
        oldest_seconds=max(ages, default=None),
    )
