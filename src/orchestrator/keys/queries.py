"""All SQL about keys.

Every statement that changes what is first or admitted runs while its keys are held (`admission.hold`), so two of them
never decide about the same key at the same time.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from uuid import UUID

import asyncpg

from orchestrator.database.pool import Connection
from orchestrator.keys.model import Keys, Limit

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

# The first word on failures counts for ever.
SET_LIMITS = """
    INSERT INTO concurrency_limit AS known (concurrency_key, at_most, stop_after)
    SELECT new.key, new.at_most, new.stop_after
      FROM unnest($1::text[], $2::smallint[], $3::int[]) AS new (key, at_most, stop_after)
        ON CONFLICT (concurrency_key) DO UPDATE SET at_most = excluded.at_most
     WHERE known.at_most <> excluded.at_most
 RETURNING concurrency_key
"""

# A task that was claimed before keeps its place; the others give theirs up in the opposite order of admission. Rows are
# locked in the order of their ids, as everywhere. Leasing holds no key, so one may be leased before it is locked.
WITHDRAW = """
    WITH surplus AS (
        SELECT beyond.task_id
          FROM unnest($1::text[]) AS given (key)
          JOIN concurrency_limit AS held ON held.concurrency_key = given.key
         CROSS JOIN LATERAL (
            SELECT task_id, attempt
              FROM task
             WHERE concurrency_key = given.key AND admitted AND status IN ('pending', 'running')
             ORDER BY (attempt > 0) DESC, rank, dispatch_no
            OFFSET greatest(0, held.at_most - (
                SELECT count(*) FROM stopping WHERE stopping.concurrency_key = given.key))
         ) AS beyond
         WHERE beyond.attempt = 0
    ), locked AS (
        SELECT task_id
          FROM task
         WHERE task_id = ANY(ARRAY(SELECT task_id FROM surplus)) AND status = 'pending'
         ORDER BY task_id
           FOR UPDATE
    )
    UPDATE task SET admitted = false WHERE task_id = ANY(ARRAY(SELECT task_id FROM locked))
"""

# The chosen are handed to the UPDATE as an array: it looks them up by their ids, whatever the planner believes about
# their number. The oldest unfinished task of an ordering key is its first, once nobody stops another; if it has no
# other key, it is admitted at once.
ADMIT_IN_ORDER = """
    UPDATE task SET first_in_order = true, admitted = (concurrency_key IS NULL)
     WHERE status = 'pending' AND task_id = ANY(ARRAY(
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
           AND NOT EXISTS (SELECT FROM stopping WHERE stopping.ordering_key = given.key)
     ))
 RETURNING concurrency_key, admitted
"""

ADMIT_WITHIN_LIMITS = """
    UPDATE task SET admitted = true
     WHERE status = 'pending' AND task_id = ANY(ARRAY(
        SELECT best.task_id
          FROM unnest($1::text[]) AS given (key)
          JOIN concurrency_limit AS held ON held.concurrency_key = given.key
         CROSS JOIN LATERAL (
            SELECT CASE WHEN held.stop_after <= (
                SELECT count(*) FROM task
                 WHERE concurrency_key = given.key AND concurrency_key LIKE 'fan-out:%' AND status = 'failed'
            ) THEN 0 ELSE greatest(0, held.at_most - (
                SELECT count(*) FROM task
                 WHERE concurrency_key = given.key AND admitted AND status IN ('pending', 'running')
            ) - (
                SELECT count(*) FROM stopping WHERE stopping.concurrency_key = given.key
            )) END AS free
         ) AS room
         CROSS JOIN LATERAL (
            SELECT task_id
              FROM task
             WHERE concurrency_key = given.key AND status = 'pending' AND first_in_order AND NOT admitted
             ORDER BY rank, dispatch_no
             LIMIT room.free
         ) AS best
     ))
"""

IS_STOPPING = """
    INSERT INTO stopping (task_id, attempt, agent_id, ordering_key, concurrency_key, until)
    SELECT task_id, attempt, agent_id, ordering_key, concurrency_key, lease_expires_at
      FROM task
     WHERE task_id = ANY($1::uuid[]) AND status = 'running'
       AND (coalesce(ordering_key, concurrency_key) IS NOT NULL
            OR EXISTS (SELECT FROM run_step WHERE run_step.task_id = task.task_id))
"""

STOPPED = """
    DELETE FROM stopping
     USING unnest($1::uuid[], $2::smallint[], $3::uuid[]) AS told (task_id, attempt, agent_id)
     WHERE stopping.task_id = told.task_id AND stopping.attempt = told.attempt AND stopping.agent_id = told.agent_id
 RETURNING stopping.ordering_key, stopping.concurrency_key
"""

OVERDUE = "SELECT task_id FROM stopping WHERE until <= now() ORDER BY until LIMIT $1"

GIVE_UP_ON = """
    DELETE FROM stopping WHERE task_id = ANY($1::uuid[]) RETURNING ordering_key, concurrency_key
"""


async def hold(db: Connection, kind: LockClass, keys: Collection[str]) -> None:
    """Wait until nobody else holds any of these keys, and hold them until the transaction ends."""
    if keys:
        await db.execute(HOLD, kind, list(keys), LOCKS - 1)


async def keys_of(db: Connection, task_ids: Collection[UUID]) -> Keys:
    """Return the keys of tasks; they never change, so no lock is needed to read them."""
    return _keys(await db.fetch(KEYS_OF, list(task_ids)))


async def concurrency_keys_of_next(db: Connection, ordering: Collection[str], besides: Collection[UUID]) -> set[str]:
    """Return the concurrency keys of those who come first in their order when `besides` have ended."""
    rows = await db.fetch(CONCURRENCY_KEYS_OF_NEXT, list(ordering), list(besides))
    return {row["concurrency_key"] for row in rows}


async def set_limits(db: Connection, limits: Mapping[str, Limit]) -> list[str]:
    """Set the limits of keys; return the keys for which another number of tasks may be on their way than before."""
    rows = await db.fetch(
        SET_LIMITS,
        list(limits),
        [limit.at_most for limit in limits.values()],
        [limit.stop_after for limit in limits.values()],
    )
    return [row["concurrency_key"] for row in rows]


async def withdraw(db: Connection, concurrency: Collection[str]) -> None:
    """Let tasks wait again that are beyond the limit of their key and were never leased."""
    await db.execute(WITHDRAW, list(concurrency))


async def admit_in_order(db: Connection, ordering: Collection[str]) -> set[str]:
    """Let the first of each ordering key go; return the concurrency keys for which some of these wait now."""
    rows = await db.fetch(ADMIT_IN_ORDER, list(ordering))
    return {row["concurrency_key"] for row in rows if not row["admitted"]}


async def admit_within_limits(db: Connection, concurrency: Collection[str]) -> None:
    """Let the best of each concurrency key go, as many as its limit allows."""
    await db.execute(ADMIT_WITHIN_LIMITS, list(concurrency))


async def is_stopping(db: Connection, task_ids: Collection[UUID]) -> None:
    """Note those of the tasks that run, and have keys or are steps of runs: they are about to be cancelled, and stop
    only after that.
    """
    await db.execute(IS_STOPPING, list(task_ids))


async def stopped(db: Connection, attempts: Collection[tuple[UUID, int, UUID]]) -> Keys:
    """Note that (task_id, attempt, agent_id) no longer run, of tasks that were cancelled; return the keys of those."""
    columns = (list(column) for column in zip(*attempts, strict=True))
    return _keys(await db.fetch(STOPPED, *columns))


async def overdue(db: Connection, *, limit: int) -> list[UUID]:
    """Return cancelled tasks of which no agent said in time that they are stopped."""
    return [row["task_id"] for row in await db.fetch(OVERDUE, limit)]


async def give_up_on(db: Connection, task_ids: Collection[UUID]) -> list[Keys]:
    """Take cancelled tasks that are `overdue` for stopped; return the keys of each."""
    return [_keys([row]) for row in await db.fetch(GIVE_UP_ON, list(task_ids))]


def _keys(rows: Sequence[asyncpg.Record]) -> Keys:
    return Keys(
        frozenset(row["ordering_key"] for row in rows if row["ordering_key"] is not None),
        frozenset(row["concurrency_key"] for row in rows if row["concurrency_key"] is not None),
    )
