"""How Alembic reaches the database: through asyncpg, with a lock so that two upgrades take turns."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from common.postgres import Database

TAKE_TURNS = text("SELECT pg_advisory_xact_lock(hashtext('chiffon.migrations'))")


def run_offline() -> None:
    context.configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection: Connection) -> None:
    context.configure(connection=connection)
    with context.begin_transaction():
        connection.execute(TAKE_TURNS)
        context.run_migrations()


async def run_online() -> None:
    url = context.config.attributes["database_url"]
    engine = create_async_engine("postgresql+asyncpg://", async_creator=Database(url).connect, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run_on)
        await connection.commit()
    await engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    asyncio.run(run_online())
