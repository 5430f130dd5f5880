"""All SQL about the outbox.

A row is *due* when nobody has published it, or when what was published must be taken for lost. Publishing first moves
`due_at` ahead and commits, so a crash in between delays a message but never loses it.
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from orchestrator.database.pool import Connection
from orchestrator.outbox.model import NewOrder, Waiting

# A worker that speaks HTTP has no queue: it is told when it asks.
ADD_ORDERS = """
    INSERT INTO outbox (recipient, task_id, priority, body, due_at)
    SELECT new.recipient, new.task_id, 5, new.body, now()
      FROM unnest($1::text[], $2::uuid[], $3::jsonb[]) AS new (recipient, task_id, body)
     WHERE NOT EXISTS (SELECT FROM agent WHERE agent.agent_id = new.recipient::uuid AND agent.worker_id IS NOT NULL)
"""

TAKE_ORDERS = """
    UPDATE outbox SET due_at = now() + $2::interval
     WHERE id = ANY(ARRAY(
        SELECT id FROM outbox WHERE due_at <= now() ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
     ))
 RETURNING id, recipient, body
"""

PUT_BACK = "UPDATE outbox SET due_at = now() + $2::interval WHERE id = ANY($1::bigint[])"

REMOVE = "DELETE FROM outbox WHERE id = ANY($1::bigint[])"


async def add_orders(db: Connection, orders: Sequence[NewOrder]) -> None:
    """Have orders published to agents."""
    if orders:
        await db.execute(
            ADD_ORDERS,
            [str(order.agent_id) for order in orders],
            [order.task_id for order in orders],
            [order.body() for order in orders],
        )


async def take_orders(db: Connection, *, limit: int, again_after: timedelta) -> list[Waiting]:
    """Take orders that are due, oldest first; those not removed meanwhile are due again after `again_after`."""
    rows = await db.fetch(TAKE_ORDERS, limit, again_after)
    return [Waiting(row["id"], UUID(row["recipient"]), row["body"]) for row in sorted(rows, key=lambda row: row["id"])]


async def put_back(db: Connection, ids: Sequence[int], *, after: timedelta) -> None:
    """Have orders that could not be published due again soon."""
    await db.execute(PUT_BACK, list(ids), after)


async def remove(db: Connection, ids: Sequence[int]) -> None:
    """Forget orders that the broker has."""
    await db.execute(REMOVE, list(ids))
