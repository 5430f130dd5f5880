"""The pool of sessions at the ledger, and transactions on them."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
from pydantic_core import to_json

from common.errors import StartupRefused
from common.postgres import OUTAGE, Database, Pooled, open_sessions
from common.postgres import Connection as Connection
from common.postgres import Pool as Pool

# What only the values of a statement can be blamed for.
BAD_DATA = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)

# Two transactions were in each other's way; the same may succeed at once.
COLLIDED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

PING = "SELECT 1"

STATEMENT = timedelta(seconds=30)


def is_outage(error: BaseException) -> bool:
    """Say whether an error means that the same may succeed later, rather than that what was asked is wrong."""
    return isinstance(error, OUTAGE) and not isinstance(error, BAD_DATA)


async def prepare(connection: Connection) -> None:
    """Let jsonb columns be read and written as Python values."""
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_dump, decoder=json.loads)


def _dump(value: Any) -> str:
    if value == {}:
        return "{}"  # by far the most frequent
    # What JSON has no word for, NaN, PostgreSQL refuses.
    return to_json(value, inf_nan_mode="constants").decode()


@asynccontextmanager
async def open_pool(url: str, *, connections: int) -> AsyncIterator[Pool]:
    """Connect to the ledger.

    Raises `StartupRefused` when nothing answers, the user may not enter, or a pooler shares sessions in between.
    """
    async with AsyncExitStack() as stack:
        try:
            database = Database(url)
            await database.check_pooling()
            pool = Pool(database, most=connections, least=min(4, connections), statement=STATEMENT, prepare=prepare)
            await stack.enter_async_context(open_sessions(pool))
        except Pooled as error:
            raise StartupRefused(f"The database cannot be used. {error}") from error
        except (*OUTAGE, ValueError) as error:
            raise StartupRefused(
                f"The database cannot be used ({type(error).__name__}: {error}). "
                "Is PostgreSQL running, and is CHIFFON_DATABASE_URL right?"
            ) from error
        yield pool


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """Take a connection and commit at the end, or roll back on an exception."""
    async with pool.acquire() as connection, connection.transaction():
        yield connection


async def ping(pool: Pool, *, seconds: float) -> None:
    """Return when the database answers; raises one of `OUTAGE` when it does not within this time."""
    async with pool.acquire(timeout=seconds) as connection:
        await connection.fetchval(PING, timeout=seconds)
