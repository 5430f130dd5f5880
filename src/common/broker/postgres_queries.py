"""Everything that the PostgreSQL broker asks its database."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from common.broker.base import Address, Delivery, Exchange, ExchangeType, Outgoing, Queue
from common.broker.postgres_schema import LOCK

Database: TypeAlias = "asyncpg.Connection | PoolConnectionProxy | asyncpg.Pool"

CHANNEL = "chiffon_broker"


@dataclass(frozen=True, slots=True)
class Tag:
    """What a delivery was: the row, and the session that held it."""

    id: int
    session: int
    type: str


ADD_QUEUES = """
    INSERT INTO chiffon_broker.queue (name, has_priorities)
    SELECT * FROM unnest($1::text[], $2::boolean[])
        ON CONFLICT DO NOTHING
 RETURNING name
"""

ADD_BINDINGS = """
    INSERT INTO chiffon_broker.binding (queue, exchange, exchange_type, routing_key)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
        ON CONFLICT DO NOTHING
 RETURNING queue
"""

RAISE_VERSION = "UPDATE chiffon_broker.topology SET version = version + 1"


async def declare(db: asyncpg.Connection | PoolConnectionProxy, queues: Sequence[Queue]) -> None:
    """Add the queues and bindings that do not exist."""
    bindings = [(queue.name, binding) for queue in queues for binding in queue.bindings]
    async with db.transaction():
        await db.execute(LOCK)
        added = await db.fetch(
            ADD_QUEUES, [queue.name for queue in queues], [queue.has_priorities for queue in queues]
        ) + await db.fetch(
            ADD_BINDINGS,
            [name for name, _ in bindings],
            [binding.exchange.name for _, binding in bindings],
            [binding.exchange.type.value for _, binding in bindings],
            [binding.routing_key for _, binding in bindings],
        )
        if added:
            await db.execute(RAISE_VERSION)


DELETE_QUEUE = "DELETE FROM chiffon_broker.queue WHERE name = $1 RETURNING name"
DELETE_MESSAGES = "DELETE FROM chiffon_broker.message WHERE queue = $1"


async def delete_queue(db: asyncpg.Connection | PoolConnectionProxy, name: str) -> None:
    """Remove a queue with its bindings and messages."""
    async with db.transaction():
        await db.execute(LOCK)
        if await db.fetchval(DELETE_QUEUE, name) is not None:
            await db.execute(RAISE_VERSION)
        await db.execute(DELETE_MESSAGES, name)


# One statement, so that version and rows belong together.
TOPOLOGY = """
    SELECT t.version, q.name, q.has_priorities, b.exchange, b.exchange_type, b.routing_key
      FROM chiffon_broker.topology t
      LEFT JOIN chiffon_broker.queue q ON true
      LEFT JOIN chiffon_broker.binding b ON b.queue = q.name
     ORDER BY q.name
"""


async def topology(db: Database) -> tuple[int, list[Queue]]:
    """Return the version of the topology and all queues with their bindings."""
    rows = await db.fetch(TOPOLOGY)
    queues = []
    for (name, has_priorities), group in groupby(rows, key=lambda row: (row["name"], row["has_priorities"])):
        if name is not None:
            bindings = tuple(
                Address(Exchange(row["exchange"], ExchangeType(row["exchange_type"])), row["routing_key"])
                for row in group
                if row["exchange"] is not None
            )
            queues.append(Queue(name, bindings, has_priorities=has_priorities))
    return rows[0]["version"], queues


TOPOLOGY_VERSION = "SELECT version FROM chiffon_broker.topology"


async def topology_version(db: Database) -> int:
    """Return the number that rises whenever a queue or binding changes."""
    version: int = await db.fetchval(TOPOLOGY_VERSION)
    return version


# Stores nothing when the topology is another than the one that the messages were routed with.
STORE = f"""
    WITH stored AS (
        INSERT INTO chiffon_broker.message (queue, rank, priority, message_id, type, body, expires_at)
        SELECT m.queue, m.rank, m.priority, m.message_id, m.type, m.body, clock_timestamp() + m.expires_after
          FROM unnest($2::text[], $3::smallint[], $4::smallint[], $5::text[], $6::text[], $7::bytea[], $8::interval[])
               WITH ORDINALITY AS m (queue, rank, priority, message_id, type, body, expires_after, number)
         WHERE (SELECT version FROM chiffon_broker.topology) = $1
         ORDER BY m.number
     RETURNING queue
    )
    SELECT count(pg_notify('{CHANNEL}', queue)) FROM (SELECT DISTINCT queue FROM stored) AS filled
"""  # noqa: S608 - a constant


async def store(db: Database, version: int, routed: Sequence[tuple[Queue, Outgoing]]) -> bool:
    """Store messages in queues; False, and nothing stored, when the topology has another version by now."""
    filled = await db.fetchval(
        STORE,
        version,
        [queue.name for queue, _ in routed],
        [message.priority if queue.has_priorities else 0 for queue, message in routed],
        [message.priority for _, message in routed],
        [str(message.message_id) for _, message in routed],
        [message.type for _, message in routed],
        [message.body for _, message in routed],
        [message.expires_after for _, message in routed],
    )
    return bool(filled)


TAKE = """
    WITH best AS (
        SELECT id
          FROM chiffon_broker.message
         WHERE queue = $1 AND session IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
         ORDER BY rank DESC, id
           FOR UPDATE SKIP LOCKED
         LIMIT $2
    )
    UPDATE chiffon_broker.message AS m
       SET session = $3
      FROM best
     WHERE m.id = best.id
 RETURNING m.id, m.rank, m.priority, m.message_id, m.type, m.headers, m.body, m.redelivered
"""


async def take(db: Database, queue: str, limit: int, *, session: int) -> list[Delivery]:
    """Hand the best free messages of a queue to a session."""
    rows = await db.fetch(TAKE, queue, limit, session)
    return [
        Delivery(
            body=row["body"],
            message_id=row["message_id"],
            priority=row["priority"],
            redelivered=row["redelivered"],
            headers=json.loads(row["headers"]),
            tag=Tag(row["id"], session, row["type"]),
        )
        for row in sorted(rows, key=lambda row: (-row["rank"], row["id"]))
    ]


FORGET = "DELETE FROM chiffon_broker.message WHERE id = ANY($1::bigint[]) AND session = $2"


async def forget(db: Database, ids: Sequence[int], *, session: int) -> None:
    """Delete messages that the session still holds."""
    await db.execute(FORGET, ids, session)


GIVE_BACK = f"""
    WITH free AS (
        UPDATE chiffon_broker.message
           SET session = NULL, redelivered = true
         WHERE id = ANY($1::bigint[]) AND session = $2
     RETURNING queue
    )
    SELECT count(pg_notify('{CHANNEL}', queue)) FROM (SELECT DISTINCT queue FROM free) AS filled
"""  # noqa: S608 - a constant


async def give_back(db: Database, ids: Sequence[int], *, session: int) -> None:
    """Free messages that the session still holds."""
    await db.execute(GIVE_BACK, ids, session)


# The move is one statement: the message is in one of the two queues at every moment.
BURY = f"""
    WITH taken AS (
        DELETE FROM chiffon_broker.message WHERE id = $1 AND session = $2
     RETURNING priority, message_id, type, body
    ), buried AS (
        INSERT INTO chiffon_broker.message (queue, rank, priority, message_id, type, body, headers)
        SELECT dead.queue, 0, taken.priority, taken.message_id, taken.type, taken.body, $4::jsonb
          FROM taken, unnest($3::text[]) AS dead (queue)
     RETURNING queue
    )
    SELECT count(pg_notify('{CHANNEL}', queue)) FROM buried
"""  # noqa: S608 - a constant


async def bury(db: Database, tag: Tag, queues: Sequence[str], headers: dict[str, str]) -> None:
    """Move a message that the session still holds to other queues."""
    await db.execute(BURY, tag.id, tag.session, queues, json.dumps(headers))


# The key of an advisory lock of 64 bits is spread over two columns.
SWEEP = f"""
    WITH free AS (
        UPDATE chiffon_broker.message
           SET session = NULL, redelivered = true
         WHERE session IS NOT NULL
           AND session NOT IN (
               SELECT (classid::bigint << 32) | objid::bigint
                 FROM pg_locks
                WHERE locktype = 'advisory' AND objsubid = 1 AND granted
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
           )
     RETURNING queue
    )
    SELECT count(pg_notify('{CHANNEL}', queue)) FROM (SELECT DISTINCT queue FROM free) AS filled
"""  # noqa: S608 - a constant

# now(), not clock_timestamp(): an index cannot serve what may change from row to row.
DROP_EXPIRED = "DELETE FROM chiffon_broker.message WHERE expires_at < now() AND session IS NULL"


async def sweep(db: Database, *, timeout: timedelta) -> None:
    """Free the messages of sessions that have ended, and delete those that have expired."""
    await db.execute(SWEEP, timeout=timeout.total_seconds())
    await db.execute(DROP_EXPIRED, timeout=timeout.total_seconds())


DEPTH = """
    SELECT count(*) FROM chiffon_broker.message
     WHERE queue = $1 AND session IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
"""


async def depth(db: Database, queue: str) -> int:
    """Return how many messages of a queue are free."""
    waiting: int = await db.fetchval(DEPTH, queue)
    return waiting


CLAIM_SESSION = "SELECT pg_try_advisory_lock($1)"


async def claim_session(db: asyncpg.Connection, number: int) -> bool:
    """Hold a session number for as long as this connection lives; False when somebody else has it."""
    held: bool = await db.fetchval(CLAIM_SESSION, number)
    return held
