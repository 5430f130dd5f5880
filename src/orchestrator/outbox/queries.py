"""All SQL about the outbox.

A row is *due* when nobody has published it, or when what was published must be taken for lost. Publishing first moves
`due_at` ahead and commits, so a crash in between delays a message but never loses it.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg

from orchestrator.database.pool import Connection
from orchestrator.outbox.model import DueTask, NewOrder, NewTicket, Waiting
from orchestrator.outbox.offers import ANYTHING, Offers

# `rank` is the task's (the SQL function `task_rank`): when it was dispatched, less its priority's worth of time. The
# lowest goes first, so a higher priority goes before a lower one that is not yet that much older.
ADD_TICKETS = """
    INSERT INTO outbox (kind, recipient, task_id, priority, body, rank, due_at, published_at)
    SELECT 'ticket', new.recipient, new.task_id, new.priority, new.body,
           coalesce(t.rank, now()), coalesce(new.due_at, now() + $6::interval),
           CASE WHEN $6::interval > '0' THEN now() END
      FROM unnest($1::text[], $2::uuid[], $3::smallint[], $4::jsonb[], $5::timestamptz[])
             AS new (recipient, task_id, priority, body, due_at)
      LEFT JOIN task t USING (task_id)
        ON CONFLICT (task_id) WHERE kind = 'ticket' DO UPDATE
       SET body = excluded.body, due_at = excluded.due_at, published_at = NULL, placed_on = NULL
"""

# A worker that speaks HTTP has no queue: it is told when it asks.
ADD_ORDERS = """
    INSERT INTO outbox (kind, recipient, task_id, priority, body, rank, due_at)
    SELECT 'order', new.recipient, new.task_id, 5, new.body, now(), now()
      FROM unnest($1::text[], $2::uuid[], $3::jsonb[]) AS new (recipient, task_id, body)
     WHERE NOT EXISTS (SELECT FROM agent WHERE agent.agent_id = new.recipient::uuid AND agent.worker_id IS NOT NULL)
"""

REMOVE_TICKETS = "DELETE FROM outbox WHERE kind = 'ticket' AND task_id = ANY($1::uuid[])"

# One line for each work type of a queue: a line that may not be published now is never read. The chosen are handed to
# the UPDATE as an array: it looks them up by their ids, however deep the backlog is. A row without an id says for how
# many of a queue there was room.
TAKE_TICKETS = """
    WITH RECURSIVE line AS (
        SELECT pool.recipient, first.work_type
          FROM unnest($1::text[]) AS pool (recipient)
         CROSS JOIN LATERAL (
            SELECT work_type FROM outbox
             WHERE kind = 'ticket' AND outbox.recipient = pool.recipient
             ORDER BY work_type LIMIT 1
         ) AS first
         UNION ALL
        SELECT line.recipient, next.work_type
          FROM line
         CROSS JOIN LATERAL (
            SELECT work_type FROM outbox
             WHERE kind = 'ticket' AND outbox.recipient = line.recipient AND outbox.work_type > line.work_type
             ORDER BY work_type LIMIT 1
         ) AS next
    ), room AS MATERIALIZED (
        SELECT pool.recipient, ahead.free
          FROM unnest($1::text[]) AS pool (recipient)
         CROSS JOIN LATERAL (
            SELECT greatest(0, $2 - count(*)) AS free
              FROM outbox
             WHERE kind = 'ticket' AND recipient = pool.recipient AND published_at IS NOT NULL AND due_at > now()
         ) AS ahead
    ), taken AS (
        UPDATE outbox SET published_at = now(), due_at = now() + $3::interval
         WHERE id = ANY(ARRAY(
            SELECT best.id
              FROM room
             CROSS JOIN LATERAL (
                SELECT first.id
                  FROM line
                 CROSS JOIN LATERAL (
                    SELECT id, rank
                      FROM outbox
                     WHERE kind = 'ticket' AND outbox.recipient = line.recipient
                       AND outbox.work_type = line.work_type AND due_at <= now()
                     ORDER BY rank, id
                     LIMIT room.free
                       FOR UPDATE SKIP LOCKED
                 ) AS first
                 WHERE line.recipient = room.recipient
                   AND (line.recipient <> ALL($5::text[])
                        OR (line.recipient, line.work_type) IN (SELECT * FROM unnest($6::text[], $7::text[])))
                 ORDER BY first.rank, first.id
                 LIMIT room.free
             ) AS best
         ))
     RETURNING id, recipient, priority, body, rank,
               greatest(priority, least(5, floor(extract(epoch FROM now() - rank) / extract(epoch FROM $4::interval))))
                 ::int AS urgency
    )
    SELECT id, recipient, priority, body, rank, urgency, NULL AS free FROM taken
     UNION ALL
    SELECT NULL, recipient, NULL, NULL, NULL, NULL, free FROM room
"""

BEST_DUE = """
    SELECT best.task_id, best.fence, line.work_type
      FROM unnest($3::text[]) AS line (work_type)
     CROSS JOIN LATERAL (
        SELECT task_id, (body->'payload'->>'fence')::bigint AS fence, rank, id
          FROM outbox
         WHERE kind = 'ticket' AND recipient = $1 AND outbox.work_type = line.work_type AND due_at <= now()
         ORDER BY rank, id
         LIMIT $2
     ) AS best
     ORDER BY best.rank, best.id
"""

TAKE_ORDERS = """
    UPDATE outbox SET published_at = now(), due_at = now() + $2::interval
     WHERE id IN (
        SELECT id FROM outbox WHERE kind = 'order' AND due_at <= now() ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
     )
 RETURNING id, recipient, priority, body, rank, priority AS urgency
"""

# Two relays that count at the same time would each fill the window.
ONE_RELAY_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtext('chiffon.relay'))"

# As ONE_RELAY_AT_A_TIME, and whether there are orders. What is written while this waits is seen the next time.
BEGIN_RELAY = """
    SELECT pg_advisory_xact_lock(hashtext('chiffon.relay')),
           EXISTS (SELECT FROM outbox WHERE kind = 'order' AND due_at <= now()) AS has_orders
"""

# For statements that compare all tasks with all tickets: a plan for an empty table, which is looked through for each
# task, would take hours when it has filled.
COMPARE_AT_ONCE = "SET LOCAL enable_nestloop = off"

GIVE_MISSING_TICKETS = """
    INSERT INTO outbox (kind, recipient, task_id, priority, body, rank, due_at)
    SELECT 'ticket', CASE t.aim WHEN '' THEN t.agent_type ELSE 'aim:' || t.aim END, t.task_id, t.priority,
           jsonb_build_object(
               'payload', jsonb_build_object('task_id', t.task_id, 'work_type', t.work_type, 'fence', t.fence),
               'trace_id', t.trace_id, 'request_id', t.request_id),
           coalesce(t.rank, now()), now()
      FROM task t
     WHERE t.status = 'pending' AND t.admitted
       AND NOT EXISTS (SELECT FROM outbox o WHERE o.kind = 'ticket' AND o.task_id = t.task_id)
        ON CONFLICT DO NOTHING
 RETURNING task_id
"""

REMOVE_NEEDLESS_TICKETS = """
    DELETE FROM outbox o
     WHERE o.kind = 'ticket'
       AND NOT EXISTS (SELECT FROM task t WHERE t.task_id = o.task_id AND t.status = 'pending' AND t.admitted)
 RETURNING task_id
"""

# A ticket that is not published may wait for a later attempt, and goes on waiting.
MAKE_DUE = """
    UPDATE outbox
       SET due_at = CASE WHEN published_at IS NULL THEN greatest(due_at, now() + $2::interval)
                         ELSE now() + $2::interval END,
           published_at = NULL
     WHERE kind = 'ticket' AND task_id = ANY($1::uuid[])
"""

# The same for tickets that agents return, of tasks of their own pools.
TAKE_BACK = """
    UPDATE outbox
       SET due_at = CASE WHEN published_at IS NULL THEN greatest(due_at, now() + $3::interval)
                         ELSE now() + $3::interval END,
           published_at = NULL
      FROM unnest($1::uuid[], $2::uuid[]) AS returned (task_id, agent_id)
      JOIN task USING (task_id)
      JOIN agent ON agent.agent_id = returned.agent_id AND agent.agent_type = task.agent_type
     WHERE outbox.kind = 'ticket' AND outbox.task_id = returned.task_id
"""

MAKE_DUE_IF_MORE_THAN = """
    UPDATE outbox SET due_at = now(), published_at = NULL
     WHERE kind = 'ticket' AND recipient = $1 AND published_at IS NOT NULL AND due_at > now()
       AND (SELECT count(*) FROM outbox
             WHERE kind = 'ticket' AND recipient = $1 AND published_at IS NOT NULL AND due_at > now()) > $2
 RETURNING id
"""

MAKE_AIMED_DUE = """
    UPDATE outbox SET due_at = now(), published_at = NULL
     WHERE kind = 'ticket' AND recipient LIKE 'aim:%' AND published_at IS NOT NULL AND due_at > now()
 RETURNING id
"""

PUT_BACK = "UPDATE outbox SET published_at = NULL, due_at = now() + $2::interval WHERE id = ANY($1::bigint[])"

POOLS = "SELECT DISTINCT recipient FROM outbox WHERE kind = 'ticket' AND recipient NOT LIKE 'aim:%'"

REMOVE = "DELETE FROM outbox WHERE id = ANY($1::bigint[])"


async def add_tickets(db: Connection, tickets: Sequence[NewTicket], *, ttl: timedelta = timedelta(0)) -> None:
    """Have tickets published; their tasks must be in the ledger already.

    With a `ttl` they count as published, for the caller does that after the commit; they are due when it is over.
    """
    if tickets:
        await db.execute(
            ADD_TICKETS,
            [ticket.recipient for ticket in tickets],
            [ticket.task_id for ticket in tickets],
            [ticket.priority for ticket in tickets],
            [ticket.body() for ticket in tickets],
            [ticket.due_at for ticket in tickets],
            ttl,
        )


async def add_orders(db: Connection, orders: Sequence[NewOrder]) -> None:
    """Have orders published to agents."""
    if orders:
        await db.execute(
            ADD_ORDERS,
            [str(order.agent_id) for order in orders],
            [order.task_id for order in orders],
            [order.body() for order in orders],
        )


async def remove_tickets(db: Connection, task_ids: Sequence[UUID]) -> None:
    """Forget the tickets of tasks that no longer wait."""
    await db.execute(REMOVE_TICKETS, list(task_ids))


async def make_due(db: Connection, task_ids: Sequence[UUID], *, after: timedelta = timedelta(0)) -> None:
    """Have the tickets of tasks published again, no sooner than `after`: the agents that took them run nothing."""
    if task_ids:
        await db.execute(MAKE_DUE, list(task_ids), after)


async def take_back(db: Connection, returned: Sequence[tuple[UUID, UUID]], *, after: timedelta) -> None:
    """Have tickets published anew, not before `after`, that agents return: (task_id, agent_id)."""
    columns = (list(column) for column in zip(*returned, strict=True))
    await db.execute(TAKE_BACK, *columns, after)


async def take_tickets(
    db: Connection,
    recipients: Sequence[str],
    *,
    window: int,
    ttl: timedelta,
    ageing: timedelta,
    offers: Offers = ANYTHING,
) -> tuple[list[Waiting], dict[str, int]]:
    """Take the best due tickets of each queue that all its agents take, as many as its window has room for.

    They are due again after `ttl`. Return them, and for how many of each queue there was room.
    """
    pairs = offers.for_all()
    rows = await db.fetch(
        TAKE_TICKETS,
        list(recipients),
        window,
        ttl,
        ageing,
        offers.choosy(),
        [agent_type for agent_type, _ in pairs],
        [work_type for _, work_type in pairs],
    )
    tickets = _in_order([row for row in rows if row["id"] is not None])
    return tickets, {row["recipient"]: row["free"] for row in rows if row["id"] is None}


async def best_due(db: Connection, recipient: str, *, limit: int, work_types: Collection[str]) -> list[DueTask]:
    """Return the tasks of the best due tickets, at most `limit` of each of these work types, and leave the tickets."""
    return [DueTask(**row) for row in await db.fetch(BEST_DUE, recipient, limit, sorted(work_types))]


async def take_orders(db: Connection, *, limit: int, again_after: timedelta) -> list[Waiting]:
    """Take orders that are due, oldest first; those not removed meanwhile are due again after `again_after`."""
    return _in_order(await db.fetch(TAKE_ORDERS, limit, again_after))


def _in_order(rows: Sequence[asyncpg.Record]) -> list[Waiting]:
    """An UPDATE returns its rows in no order; among equals of a queue, the first published is the first delivered."""
    ordered = sorted(rows, key=lambda row: (row["rank"], row["id"]))
    return [Waiting(row["id"], row["recipient"], row["priority"], row["urgency"], row["body"]) for row in ordered]


async def put_back(db: Connection, ids: Sequence[int], *, after: timedelta) -> None:
    """What could not be published is due again soon."""
    await db.execute(PUT_BACK, list(ids), after)


async def remove(db: Connection, ids: Sequence[int]) -> None:
    """Forget rows whose message the broker has."""
    await db.execute(REMOVE, list(ids))


async def one_relay_at_a_time(db: Connection) -> None:
    """Wait until no other transaction relays; until this one ends."""
    await db.execute(ONE_RELAY_AT_A_TIME)


async def begin_relay(db: Connection) -> bool:
    """Do as `one_relay_at_a_time`, and return whether orders are due."""
    row = await db.fetchrow(BEGIN_RELAY)
    assert row is not None
    return bool(row["has_orders"])


async def give_missing_tickets(db: Connection) -> list[UUID]:
    """Give a ticket to every task that waits without one; return the tasks. Only in a transaction of its own."""
    await db.execute(COMPARE_AT_ONCE)
    return [row["task_id"] for row in await db.fetch(GIVE_MISSING_TICKETS)]


async def remove_needless_tickets(db: Connection) -> list[UUID]:
    """Remove the tickets of tasks that do not wait; return the tasks."""
    return [row["task_id"] for row in await db.fetch(REMOVE_NEEDLESS_TICKETS)]


async def make_due_if_more_than(db: Connection, recipient: str, depth: int) -> int:
    """Have all tickets of a queue published again if more of them count as published than the queue holds."""
    return len(await db.fetch(MAKE_DUE_IF_MORE_THAN, recipient, depth))


async def make_aimed_due(db: Connection) -> int:
    """Have all tickets that were published for single agents published again."""
    return len(await db.fetch(MAKE_AIMED_DUE))


async def pools(db: Connection) -> set[str]:
    """Return the types of agents for which tickets wait. Reads all tickets: for a start, not for a loop."""
    return {row["recipient"] for row in await db.fetch(POOLS)}
