"""Sessions at PostgreSQL: how they are opened, and how all of them are replaced when one turns out to be useless.

The ledger and the bus inside PostgreSQL share this. A failover can leave sessions open that will never write again: on
a server that is a standby by now, or that shuts down. One error that says so condemns every session of its `Database`.
A statement that runs out of time says nothing of its server, which may only be slow. Servers that are gone without
closing their connections are found by `Database.check`, on a session that has nothing else to do.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import parse_qs, urlsplit

import asyncpg
from asyncpg.pool import PoolAcquireContext, PoolConnectionProxy

from common.urls import each_host, without_secrets

if TYPE_CHECKING:
    PoolOfRecords: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Acquired: TypeAlias = PoolAcquireContext[asyncpg.Record]
else:
    PoolOfRecords, Acquired = asyncpg.Pool, PoolAcquireContext

log = logging.getLogger(__name__)

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"

# Everything that a statement can raise when its server is away, full, overloaded, read-only or out of time.
# InternalClientError is what a statement gets that meets a connection while the server ends it.
OUTAGE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)

# SQLSTATEs after which a session cannot be used any more, and perhaps no other session of the same server.
READ_ONLY = "25006"
CONNECTION_EXCEPTIONS = "08"
# admin_shutdown, crash_shutdown, cannot_connect_now (starting up, shutting down, in recovery), database_dropped,
# idle_session_timeout
ENDING = ("57P01", "57P02", "57P03", "57P04", "57P05")

CONNECT = timedelta(seconds=5)
# A server that leaves a question without work unanswered for so long is taken for gone.
SILENCE = timedelta(seconds=5)
# A statement that is given up must be cancelled over another connection, which a dead server never answers.
RELEASE_SECONDS = 1.0
WRITES = "read-write"
CLOSE_SECONDS = 2.0
IS_READ_ONLY = "SHOW transaction_read_only"
BACKEND = "SELECT pg_backend_pid()"
# How often two sessions are compared; each time a pooler that shares connections may by chance have two to give.
COMPARISONS = 5
# How PgBouncer refuses a transaction in statement mode.
NO_TRANSACTIONS = "statement pooling mode"


class Pooled(Exception):
    """The database is behind a pooler that gives every transaction another session."""

    def __init__(self) -> None:
        super().__init__(
            "It is behind a connection pooler in transaction or statement mode, where prepared statements, advisory "
            "locks and LISTEN do not work: use session mode (PgBouncer: pool_mode = session)."
        )


def is_useless(error: BaseException) -> bool:
    """Return whether an error, or one that led to it, says that its session cannot be used any more."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, asyncpg.PostgresError):
            code = str(found.sqlstate)
            if code == READ_ONLY or code.startswith(CONNECTION_EXCEPTIONS) or code in ENDING:
                return True
        elif isinstance(found, ConnectionError | asyncpg.InternalClientError):
            return True
        found = found.__cause__ or found.__context__
    return False


class Database:
    """The server behind a URL, which may name several hosts, and everything that holds sessions of it.

    `settings` are made in every session after connecting, because PgBouncer refuses them as startup parameters.
    """

    def __init__(
        self,
        url: str,
        *,
        settings: Mapping[str, str] | None = None,
        connect: timedelta = CONNECT,
        silence: timedelta = SILENCE,
    ) -> None:
        self.url = url
        self._settings = settings or {}
        self._connect = connect
        self._silence = silence.total_seconds()
        # The one that worked last comes first: a dead host must not cost every session its patience.
        self._hosts = list(each_host(url))
        self._condemned: list[Callable[[], Awaitable[None]]] = []
        # The sessions that are in use, and the generation of each.
        self._lent: dict[Connection, int] = {}
        # How often every session was condemned: what was under way then has an unknown outcome.
        self.generation = 0

    async def connect(self, *_: object, settings: Mapping[str, str] | None = None, **options: Any) -> Any:
        """Open a session that can write, at the first host that has one. Raises one of `OUTAGE`, or `ValueError`."""
        seconds = self._connect.total_seconds() / len(self._hosts)
        failures: list[str] = []
        for host in list(self._hosts):
            try:
                connection = await asyncpg.connect(host, **{**options, **_wanted(host), "timeout": seconds})
                try:
                    await _set(connection, {**self._settings, **(settings or {})}, seconds=seconds)
                except BaseException:
                    connection.terminate()
                    raise
            except OUTAGE as failure:
                if len(self._hosts) == 1:
                    raise
                failures.append(f"{shown(host)}: {failure or type(failure).__name__}")
                last = failure
            else:
                self._hosts.remove(host)
                self._hosts.insert(0, host)
                return connection
        raise ConnectionError("; ".join(failures)) from last

    @contextmanager
    def condemnations(self, tell: Callable[[], Awaitable[None]]) -> Iterator[None]:
        """While inside, call `tell` when all open sessions are given up."""
        self._condemned.append(tell)
        try:
            yield
        finally:
            self._condemned.remove(tell)

    async def condemn(self, reason: BaseException) -> None:
        """Have every session replaced."""
        self.generation += 1
        log.warning("database.sessions_condemned", extra={"reason": repr(reason)})
        for tell in tuple(self._condemned):
            await tell()

    def lent(self, connection: Connection) -> None:
        """A session is in use from now on."""
        self._lent[connection] = self.generation

    def returned(self, connection: Connection) -> None:
        """A session is not in use any more."""
        del self._lent[connection]

    async def check(self, connection: Connection) -> None:
        """Return when a session that does nothing else answers that it can write.

        Otherwise condemn every session and raise one of `OUTAGE`. A session that can write proves that the server
        answers. Statements that still wait in condemned sessions are ended then: their connections may be dead without
        having been closed.
        """
        try:
            if await connection.fetchval(IS_READ_ONLY, timeout=self._silence) == "on":
                raise ConnectionError("the session has become read-only")
        except OUTAGE as failure:
            if isinstance(failure, TimeoutError) or is_useless(failure):
                await self.condemn(failure)
            raise
        for lent, generation in tuple(self._lent.items()):
            if generation < self.generation:
                lent.terminate()

    async def check_pooling(self) -> None:
        """Raise `Pooled` when two sessions share one of the server's; raises one of `OUTAGE` without a server."""
        # Without a cache: a pooler in transaction mode would show a prepared statement to others.
        first = await self.connect(statement_cache_size=0)
        try:
            # What a pooler says when one connects is no number of the server's.
            if await _backend(first) == first.get_server_pid():
                return
            second = await self.connect(statement_cache_size=0)
            try:
                for _ in range(COMPARISONS):
                    if await _backend(first) == await _backend(second):
                        raise Pooled
            finally:
                await _close(second)
        except asyncpg.PostgresError as refusal:
            if NO_TRANSACTIONS in str(refusal):
                raise Pooled from refusal
            raise
        finally:
            await _close(first)


class Pool(PoolOfRecords):
    """Sessions of a database, lent one by one; all are replaced after an error that says that one is useless.

    Opened by `open_sessions`.
    """

    def __init__(
        self,
        database: Database,
        *,
        most: int,
        least: int = 0,
        statement: timedelta,
        prepare: Callable[[Connection], Awaitable[None]] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.database = database
        self._own_settings = settings or {}
        super().__init__(
            database.url,
            min_size=least,
            max_size=most,
            max_queries=50_000,
            max_inactive_connection_lifetime=300.0,
            connect=self._open,
            setup=None,
            init=cast("Any", prepare),
            reset=_as_it_is,
            loop=None,
            connection_class=asyncpg.Connection,
            record_class=asyncpg.Record,
            command_timeout=statement.total_seconds(),
            # PostgreSQL decides by itself when a plan has become old.
            max_cached_statement_lifetime=0,
        )

    def acquire(self, *, timeout: float | None = None) -> "_Lent":
        return _Lent(self, timeout)

    async def _open(self, *_: object, **options: Any) -> Any:
        return await self.database.connect(settings=self._own_settings, **options)


class _Lent(Acquired):
    """A session while it is lent."""

    pool: Pool

    async def __aenter__(self) -> Any:
        connection = await super().__aenter__()
        self.pool.database.lent(connection)
        return connection

    async def __aexit__(self, *exception: object) -> None:
        self.done = True
        connection, self.connection = self.connection, None
        assert connection is not None
        self.pool.database.returned(connection)
        error = exception[1]
        # Before it goes back, so that nobody is given it again.
        if isinstance(error, BaseException) and is_useless(error):
            await self.pool.database.condemn(error)
        # Released in time or ended.
        with suppress(TimeoutError):
            await self.pool.release(connection, timeout=RELEASE_SECONDS)


@asynccontextmanager
async def open_sessions(pool: Pool) -> AsyncIterator[Pool]:
    """Open a pool, and close it at the end, by force when its server does not answer. Raises what `connect` raises."""
    with pool.database.condemnations(pool.expire_connections):
        await pool
        try:
            yield pool
        finally:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await pool.close()
            except OUTAGE:
                pool.terminate()


def shown(url: str) -> str:
    """Return the part of a database's URL that may be shown."""
    parts = urlsplit(without_secrets(url))
    host = parts.netloc or "".join(parse_qs(urlsplit(url).query).get("host", ["localhost"]))
    return f"{host}{parts.path}"


def _wanted(url: str) -> dict[str, str]:
    """Ask for a session that can write, unless the URL asks for something else."""
    return {} if "target_session_attrs" in parse_qs(urlsplit(url).query) else {"target_session_attrs": WRITES}


async def _set(connection: Any, settings: Mapping[str, str], *, seconds: float) -> None:
    if settings:
        calls = (f"set_config({_quoted(name)}, {_quoted(value)}, false)" for name, value in settings.items())
        await connection.execute(f"SELECT {', '.join(calls)}", timeout=seconds)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


async def _as_it_is(connection: Connection) -> None:
    """Hand a connection on as it is: asyncpg asks the database to reset each one, a round trip for every use.

    Nothing here changes a session: locks and settings end with their transactions, and who listens has a connection of
    its own.
    """


async def _backend(connection: Any) -> int:
    # In a transaction, so that everything that asking takes reaches the same session.
    async with connection.transaction():
        number: int = await connection.fetchval(BACKEND)
        return number


async def _close(connection: Any) -> None:
    with suppress(*OUTAGE):
        await connection.close(timeout=CLOSE_SECONDS)
