"""A real PostgreSQL for tests: the one named by the environment, or the embedded one that `chiffon up` runs."""

import asyncio
import atexit
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import psutil

from chiffon.embedded_postgres import FAST_SHUTDOWN, STOP_LIMIT, Cluster, open_cluster, start_server
from chiffon.processes import Child

URL_VARIABLE = "CHIFFON_TEST_DATABASE_URL"


class Embedded:
    """A server of our own, with everything that it writes in one folder."""

    def __init__(self, folder: Path, cluster: Cluster, *, durable: bool) -> None:
        self.folder = folder
        self.cluster = cluster
        self._durable = durable
        self._child: Child | None = None

    async def start(self) -> None:
        assert self._child is None or self._child.ended.done(), "it is running"
        self._child = await start_server(self.cluster, log=self.folder / "log", durable=self._durable)

    async def end(self, how: signal.Signals) -> None:
        """Let the server end in the way that a signal names, and wait until it has."""
        assert self._child is not None
        await self._child.stop(STOP_LIMIT, how=how)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server; each is in a session of its own."""
        assert self._child is not None
        server = psutil.Process(self._child.pid)
        for process in (server, *server.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def remove(self) -> None:
        """Stop the server, also when no event loop runs any more, and remove what it wrote."""
        child, self._child = self._child, None
        if child is not None and not child.ended.done():
            _stop(child.pid)
        self.cluster.remove_sockets()
        shutil.rmtree(self.folder, ignore_errors=True)


class Postgres:
    """A running server that hands out databases. Whoever starts it calls `stop`."""

    def __init__(self, url: str, embedded: Embedded | None) -> None:
        self.url = url
        self._embedded = embedded
        self._databases: list[str] = []

    @property
    def data_folder(self) -> Path | None:
        """The embedded server's data; None for a server that somebody else runs."""
        return None if self._embedded is None else self._embedded.cluster.data

    @property
    def can_control(self) -> bool:
        """Say whether `stop_immediately` and `start_again` work: not on a server that somebody else runs."""
        return self._embedded is not None

    async def create_database(self, *, template: str | None = None) -> str:
        """Create a database and return its URL: an empty one, or a copy of the one whose URL or name is `template`.

        Nobody may be connected to the template.
        """
        name = f"test_{uuid4().hex}"
        source = "template1" if template is None else _database_name(template)
        await self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')
        self._databases.append(name)
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    async def drop_database(self, url: str) -> None:
        """Drop a database, whoever is still connected to it."""
        name = _database_name(url)
        await self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        if name in self._databases:
            self._databases.remove(name)

    async def terminate_sessions(self, url: str) -> int:
        """End every session of a database as an administrator would, and return how many there were."""
        connection = await asyncpg.connect(self.url)
        try:
            ended = await connection.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
                _database_name(url),
            )
            return len(ended)
        finally:
            await connection.close()

    async def execute(self, statement: str) -> None:
        """Run one statement as the administrator."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def drop_databases(self) -> None:
        """Drop every database that was created here and not dropped yet."""
        for name in tuple(self._databases):
            await self.drop_database(f"postgresql:///{name}")

    async def stop_immediately(self) -> None:
        """Let the server vanish as in a crash: sessions are cut, nothing is flushed; start it `durable` for this."""
        await self._controlled().end(signal.SIGQUIT)

    def freeze(self) -> None:
        """Let the server answer nothing more, while its connections stay open: as when its host is gone."""
        self._controlled().signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._controlled().signal(signal.SIGCONT)

    async def start_again(self) -> None:
        """Start a server that was stopped immediately, on the same data and at the same URL; it recovers first."""
        await self._controlled().start()

    def stop(self) -> None:
        """Stop the embedded server and remove what it wrote; a server that somebody else runs goes on."""
        embedded, self._embedded = self._embedded, None
        if embedded is not None:
            embedded.remove()

    def _controlled(self) -> Embedded:
        assert self._embedded is not None, "a server given by its URL is used, never controlled"
        return self._embedded


async def start_postgres(*, durable: bool = False) -> Postgres:
    """Return a running server. Unless `durable`, the embedded one may lose data in a crash, and is faster."""
    url = os.environ.get(URL_VARIABLE)
    return Postgres(url, None) if url else await start_embedded_postgres(durable=durable)


async def start_embedded_postgres(*, durable: bool) -> Postgres:
    """Return a server that can be controlled, whatever the environment names."""
    folder = Path(tempfile.mkdtemp(prefix="chiffon-postgres-"))
    # When root starts it, the server runs as a user of its own, who must be able to reach its data.
    folder.chmod(0o711)
    try:
        cluster = await asyncio.to_thread(open_cluster, folder)
        embedded = Embedded(folder, cluster, durable=durable)
        await embedded.start()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    postgres = Postgres(cluster.url, embedded)
    atexit.register(postgres.stop)
    return postgres


def _stop(pid: int) -> None:
    """Stop a server, by force when it takes too long."""
    # Only looked at, never waited for: its exit status belongs to the event loop that started it.
    deadline = time.monotonic() + STOP_LIMIT.total_seconds()
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        server = psutil.Process(pid)
        server.send_signal(FAST_SHUTDOWN)
        while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.02)


def _database_name(url_or_name: str) -> str:
    return urlsplit(url_or_name).path.removeprefix("/") if "://" in url_or_name else url_or_name
