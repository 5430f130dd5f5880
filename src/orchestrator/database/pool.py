"""Connections to PostgreSQL, and transactions on them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from pydantic_core import to_json

from common.errors import StartupRefused

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"

# What only the values of a statement can be blamed for.
BAD_DATA = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)

# Anything else that a statement can raise: away, full, overloaded, read-only, out of time. It may succeed later.
OUTAGE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)

# Two transactions were in each other's way; the same may succeed at once.
COLLIDED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

PING = "SELECT 1"

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 30


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


async def _as_it_is(connection: Connection) -> None:
    """Hand a connection on as it is: asyncpg asks the database to reset each one, a round trip for every use.

    Nothing here changes a session: locks and settings end with their transactions, and who listens has a connection of
    its own.
    """


@asynccontextmanager
async def open_pool(url: str, *, connections: int) -> AsyncIterator[Pool]:
    """Connect to the ledger; raises `StartupRefused` when there is nobody, or no right to enter."""
    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=min(4, connections),
            max_size=connections,
            init=prepare,
            reset=_as_it_is,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            # PostgreSQL decides by itself when a plan has become old.
            max_cached_statement_lifetime=0,
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise StartupRefused(
            f"The database cannot be used ({type(error).__name__}: {error}). "
            "Is PostgreSQL running, and is CHIFFON_DATABASE_URL right?"
        ) from error
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """Take a connection and commit at the end, or roll back on an exception."""
    async with pool.acquire() as connection, connection.transaction():
        yield connection


async def ping(pool: Pool, *, seconds: float) -> None:
    """Return when the database answers; raises one of `AWAY` when it does not within this time."""
    async with pool.acquire(timeout=seconds) as connection:
        await connection.fetchval(PING, timeout=seconds)
