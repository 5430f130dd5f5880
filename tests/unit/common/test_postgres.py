"""Which errors make a session useless, and how a database of several hosts is connected to."""

import asyncio
import time
from datetime import timedelta

import asyncpg
import pytest

from common.postgres import Database, is_useless, shown

USELESS = (
    asyncpg.ReadOnlySQLTransactionError("cannot execute UPDATE in a read-only transaction"),
    asyncpg.AdminShutdownError("terminating connection due to administrator command"),
    asyncpg.CrashShutdownError("terminating connection because of crash of another server process"),
    asyncpg.CannotConnectNowError("the database system is in recovery mode"),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.IdleSessionTimeoutError("terminating connection due to idle-session timeout"),
    ConnectionResetError(),
)
USABLE = (
    asyncpg.UniqueViolationError("duplicate key"),
    asyncpg.DeadlockDetectedError("deadlock detected"),
    asyncpg.LockNotAvailableError("canceling statement due to lock timeout"),
    ValueError("no number"),
    TimeoutError(),
    FileNotFoundError("no file of that name"),
)


@pytest.mark.parametrize("error", USELESS, ids=repr)
def test_an_error_that_ends_a_session_condemns_all(error: Exception) -> None:
    assert is_useless(error)


@pytest.mark.parametrize("error", USABLE, ids=repr)
def test_an_error_of_one_statement_condemns_none(error: Exception) -> None:
    assert not is_useless(error)


def test_an_error_that_hides_one_that_ends_a_session_condemns_all() -> None:
    rolling_back = asyncpg.InterfaceError("connection is closed")
    rolling_back.__context__ = USELESS[0]

    assert is_useless(rolling_back)


async def test_a_host_that_answers_nothing_leaves_time_for_the_next() -> None:
    answered = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered.set()
        writer.close()

    async with await _serve(say_nothing) as silent, await _serve(answer) as other:
        hosts = ",".join(f"127.0.0.1:{one.sockets[0].getsockname()[1]}" for one in (silent, other))
        database = Database(f"postgresql://ann@{hosts}/ledger?sslmode=disable", connect=timedelta(seconds=1))
        began = time.monotonic()

        with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:\d+/ledger: .*; 127\.0\.0\.1:\d+/ledger: "):
            await database.connect()

    assert answered.is_set()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgresql://ann:secret@one:1,two:2/ledger?password=secret", "one:1,two:2/ledger"),
        ("postgresql://ann@/ledger?host=/run/postgresql", "/run/postgresql/ledger"),
        ("postgresql://ann@[::1]:5432/ledger", "[::1]:5432/ledger"),
    ],
)
def test_a_database_is_shown_without_its_user_and_password(url: str, wanted: str) -> None:
    assert shown(url) == wanted


async def _serve(handle: object) -> asyncio.Server:
    return await asyncio.start_server(handle, "127.0.0.1", 0)  # type: ignore[arg-type]
