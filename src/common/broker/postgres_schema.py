"""The tables of the PostgreSQL broker: what exists, and who may take which message."""

import asyncpg

# A message is free while `session` is NULL, and held while the session of that number lives: each connected broker
# keeps an advisory lock on its own random number, which PostgreSQL releases when the connection ends, however it ends.
SCHEMA = """
    CREATE SCHEMA IF NOT EXISTS chiffon_broker;

    CREATE TABLE IF NOT EXISTS chiffon_broker.queue (
        name text PRIMARY KEY,
        has_priorities boolean NOT NULL
    );

    CREATE TABLE IF NOT EXISTS chiffon_broker.binding (
        queue text NOT NULL REFERENCES chiffon_broker.queue ON DELETE CASCADE,
        exchange text NOT NULL,
        exchange_type text NOT NULL,
        routing_key text NOT NULL,
        PRIMARY KEY (queue, exchange, routing_key)
    );

    -- One row; rises with every change of queues and bindings, so that publishers see that theirs are old.
    CREATE TABLE IF NOT EXISTS chiffon_broker.topology (version bigint NOT NULL);
    INSERT INTO chiffon_broker.topology SELECT 1 WHERE NOT EXISTS (SELECT FROM chiffon_broker.topology);

    CREATE TABLE IF NOT EXISTS chiffon_broker.message (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        queue text NOT NULL,
        rank smallint NOT NULL,
        priority smallint NOT NULL,
        message_id text NOT NULL,
        type text NOT NULL,
        headers jsonb NOT NULL DEFAULT '{}',
        body bytea NOT NULL,
        expires_at timestamptz,
        session bigint,
        redelivered boolean NOT NULL DEFAULT false
    ) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);

    CREATE INDEX IF NOT EXISTS message_free
        ON chiffon_broker.message (queue, rank DESC, id) WHERE session IS NULL;
    CREATE INDEX IF NOT EXISTS message_held
        ON chiffon_broker.message (session) WHERE session IS NOT NULL;
    CREATE INDEX IF NOT EXISTS message_expiring
        ON chiffon_broker.message (expires_at) WHERE expires_at IS NOT NULL;
"""

IS_INSTALLED = "SELECT to_regclass('chiffon_broker.message_expiring') IS NOT NULL"

# Two CREATE … IF NOT EXISTS at the same moment can collide, and two changes of the topology must follow each other.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('chiffon_broker.topology', 0))"


async def install(db: asyncpg.Connection) -> None:
    """Create the tables unless they exist; a role that may not create any can use those that somebody else made."""
    if await db.fetchval(IS_INSTALLED):
        return
    async with db.transaction():
        await db.execute(LOCK)
        await db.execute(SCHEMA)
