"""A proxy in front of PostgreSQL that loses the answer to a COMMIT that has succeeded, or to a write without one."""

import asyncio
import random
import re
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

SOCKET = ".s.PGSQL.5432"
# The simple query that the driver sends at the end of a transaction block.
COMMIT = b"Q\x00\x00\x00\x0cCOMMIT;\x00"
# How the driver prepares a statement, and what those say that lock, change and tell at once, without a transaction.
PREPARE = re.compile(rb"P.{4}(__asyncpg_stmt_\w+__\x00)([^\x00]*)\x00", re.DOTALL)
AT_ONCE = (b"held AS MATERIALIZED", b"told AS MATERIALIZED")


class CommitProxy:
    """Listens on a Unix socket. While `armed`, a share of the commits is done and its answer never arrives."""

    def __init__(self, database_url: str, folder: Path, chance: random.Random, *, share: float = 0.3) -> None:
        parts = urlsplit(database_url)
        [host] = parse_qs(parts.query)["host"]
        self._target = str(Path(host) / SOCKET)
        self._folder = folder
        self._chance = chance
        self._share = share
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.armed = False
        self.swallowed = 0
        self.url = urlunsplit(parts._replace(query=urlencode({"host": str(folder)})))

    async def __aenter__(self) -> Self:
        self._folder.mkdir(mode=0o711, exist_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._folder / SOCKET)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            server_reader, server = await asyncio.open_unix_connection(self._target)
        except OSError:
            client.transport.abort()
            return
        self._writers |= {client, server}
        losing = asyncio.Event()
        try:
            await asyncio.gather(
                self._to_server(reader, server, losing), self._to_client(server_reader, client, losing)
            )
        except OSError:
            pass
        finally:
            for writer in (client, server):
                self._writers.discard(writer)
                writer.transport.abort()

    async def _to_server(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        commits = {COMMIT}
        while data := await reader.read(65_536):
            if self.armed and any(commit in data for commit in commits) and self._chance.random() < self._share:
                losing.set()
            # From its second use on: here it is only prepared.
            commits |= {name for name, text in PREPARE.findall(data) if all(part in text for part in AT_ONCE)}
            server.write(data)
            await server.drain()
        server.transport.abort()

    async def _to_client(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        while data := await reader.read(65_536):
            if losing.is_set():
                # PostgreSQL has answered, so the commit is done; only nobody will ever hear of it.
                self.swallowed += 1
                break
            client.write(data)
            await client.drain()
        client.transport.abort()
