"""All SQL about keys.

Every statement that changes what is first or admitted runs while its keys are held (`admission.hold`), so two of them
never decide about the same key at the same time.
"""

from collections.abc import Collection, Mapping
from enum import IntEnum
from uuid import UUID

import asyncpg

from orchestrator.database.pool import Connection
from orchestrator.keys.model import Keys
from orchestrator.outbox.model import NewTicket

# Keys share this many locks of each kind. The lock table of PostgreSQL has room for some thousands in all, and one
# batch can name a thousand keys; two keys that share a lock only wait for each other now and then.
LOCKS = 1024


class LockClass(IntEnum):
    """The first half of an advisory lock's number; the order is the one in which the kinds are taken."""

    ORDERING = 1_471
    CONCURRENCY = 1_472


# The inner SELECT is sorted before the outer one locks.
HOLD = """
    SELECT pg_advisory_xact_lock($1::int, sorted.number)
      FROM (SELECT DISTINCT (hashtextextended(key, 0) & $3::bigint)::int AS number
              FROM unnest($2::text[]) AS given (key)
             ORDER BY 1) AS sorted
"""

KEYS_OF = """
    SELECT DISTINCT ordering_key, concurrency_key
      FROM task
     WHERE task_id = ANY($1::uuid[]) AND (ordering_key IS NOT NULL OR concurrency_key IS NOT NULL)
"""

CONCURRENCY_KEYS_OF_NEXT = """
    SELECT DISTINCT next.concurrency_key
      FROM unnest($1::text[]) AS given (key)
     CROSS JOIN LATERAL (
        SELECT concurrency_key
          FROM task
         WHERE ordering_key = given.key AND status IN ('awaiting_approval', 'pending', 'running')
           AND task_id <> ALL($2::uuid[])
         ORDER BY dispatch_no
         LIMIT 1
     ) AS next
     WHERE next.concurrency_key IS NOT NULL
"""

SET_LIMITS = """
    INSERT INTO concurrency_limit AS known (concurrency_key, at_most)
    SELECT new.key, new.at_most FROM unnest($1::text[], $2::smallint[]) AS new (key, at_most)
        ON CONFLICT (concurrency_key) DO UPDATE SET at_most = excluded.at_most
     WHERE known.at_most <> excluded.at_most
 RETURNING concurrency_key
"""

# A task that was claimed before keeps its place; the others give theirs up in the opposite order of admission. Rows are
# locked in the order of their ids, as everywhere.
WITHDRAW = """
    WITH surplus AS (
        SELECT beyond.task_id
          FROM unnest($1::text[]) AS given (key)
          JOIN concurrency_limit AS held ON held.concurrency_key = given.key
         CROSS JOIN LATERAL (
            SELECT task_id, fence
              FROM task
             WHERE concurrency_key = given.key AND admitted AND status IN ('pending', 'running')
             ORDER BY (fence > 0) DESC, priority DESC, dispatch_no
            OFFSET held.at_most
         ) AS beyond
         WHERE beyond.fence = 0
    ), locked AS (
        SELECT task.task_id
          FROM task
          JOIN surplus ON surplus.task_id = task.task_id
         WHERE task.status = 'pending' AND task.fence = 0 AND task.admitted
         ORDER BY task.task_id
           FOR UPDATE OF task
    )
    UPDATE task SET admitted = false
      FROM locked
     WHERE task.task_id = locked.task_id
 RETURNING task.task_id
"""

# The oldest unfinished task of an ordering key is its first. If it has no other key it is admitted at once.
ADMIT_IN_ORDER = """
    UPDATE task SET first_in_order = true, admitted = (task.concurrency_key IS NULL)
      FROM (
        SELECT first.task_id
          FROM unnest($1::text[]) AS given (key)
         CROSS JOIN LATERAL (
            SELECT task_id, status, concurrency_key, first_in_order, admitted
              FROM task
             WHERE ordering_key = given.key AND status IN ('awaiting_approval', 'pending', 'running')
             ORDER BY dispatch_no
             LIMIT 1
         ) AS first
         WHERE first.status = 'pending' AND NOT first.admitted
           AND (NOT first.first_in_order OR first.concurrency_key IS NULL)
      ) AS turn
     WHERE task.task_id = turn.task_id AND task.status = 'pending'
 RETURNING task.task_id, task.trace_id, task.request_id, task.work_type, task.agent_type, task.priority, task.fence,
           task.concurrency_key, task.admitted
"""

ADMIT_WITHIN_LIMITS = """
    UPDATE task SET admitted = true
      FROM (
        SELECT best.task_id
          FROM unnest($1::text[]) AS given (key)
          JOIN concurrency_limit AS held ON held.concurrency_key = given.key
         CROSS JOIN LATERAL (
            SELECT greatest(0, held.at_most - count(*)) AS free
              FROM task
             WHERE concurrency_key = given.key AND admitted AND status IN ('pending', 'running')
         ) AS room
         CROSS JOIN LATERAL (
            SELECT task_id
              FROM task
             WHERE concurrency_key = given.key AND status = 'pending' AND first_in_order AND NOT admitted
             ORDER BY priority DESC, dispatch_no
             LIMIT room.free
         ) AS best
      ) AS turn
     WHERE task.task_id = turn.task_id AND task.status = 'pending'
 RETURNING task.task_id, task.trace_id, task.request_id, task.work_type, task.agent_type, task.priority, task.fence,
           task.concurrency_key, task.admitted
"""


async def hold(db: Connection, kind: LockClass, keys: Collection[str]) -> None:
    """Wait until nobody else holds any of these keys, and hold them until the transaction ends."""
    if keys:
        await db.execute(HOLD, kind, list(keys), LOCKS - 1)


async def keys_of(db: Connection, task_ids: Collection[UUID]) -> Keys:
    """Return the keys of tasks; they never change, so no lock is needed to read them."""
    rows = await db.fetch(KEYS_OF, list(task_ids))
    return Keys(
        frozenset(row["ordering_key"] for row in rows if row["ordering_key"] is not None),
        frozenset(row["concurrency_key"] for row in rows if row["concurrency_key"] is not None),
    )


async def concurrency_keys_of_next(db: Connection, ordering: Collection[str], besides: Collection[UUID]) -> set[str]:
    """Return the concurrency keys of those who come first in their order when `besides` have ended."""
    rows = await db.fetch(CONCURRENCY_KEYS_OF_NEXT, list(ordering), list(besides))
    return {row["concurrency_key"] for row in rows}


async def set_limits(db: Connection, limits: Mapping[str, int]) -> list[str]:
    """Set how many tasks of each key may be on their way; return the keys for which that is new or another number."""
    rows = await db.fetch(SET_LIMITS, list(limits), list(limits.values()))
    return [row["concurrency_key"] for row in rows]


async def withdraw(db: Connection, concurrency: Collection[str]) -> list[UUID]:
    """Let tasks wait again that are beyond the limit of their key and were never claimed; return them."""
    return [row["task_id"] for row in await db.fetch(WITHDRAW, list(concurrency))]


async def admit_in_order(db: Connection, ordering: Collection[str]) -> tuple[list[NewTicket], set[str]]:
    """Let the first of each ordering key go; return tickets, and the concurrency keys for which some wait now."""
    rows = await db.fetch(ADMIT_IN_ORDER, list(ordering))
    return [_ticket(row) for row in rows if row["admitted"]], {
        row["concurrency_key"] for row in rows if not row["admitted"]
    }


async def admit_within_limits(db: Connection, concurrency: Collection[str]) -> list[NewTicket]:
    """Let the best of each concurrency key go, as many as its limit allows; return tickets."""
    return [_ticket(row) for row in await db.fetch(ADMIT_WITHIN_LIMITS, list(concurrency))]


def _ticket(row: asyncpg.Record) -> NewTicket:
    return NewTicket(
        row["task_id"],
        row["trace_id"],
        row["request_id"],
        row["work_type"],
        row["agent_type"],
        row["priority"],
        fence=row["fence"],
    )
