"""A TCP proxy that can drop what goes through it."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

DEFAULT_PORTS = {"amqp": 5672, "postgresql": 5432, "http": 80}
# By this much of what a client says first its connection can be told from others.
INTRODUCTION_BYTES = 4096


@dataclass(eq=False)
class _Connection:
    """Both ends of a connection, what its client said first, and the ends to which nothing is passed on."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    introduction: bytes = b""
    deaf: set[asyncio.StreamWriter] = field(default_factory=set)


class Proxy:
    """Listens on a free port of the loopback interface and passes everything on to the server of a URL.

    A URL of PostgreSQL may name the directory of a Unix socket: `?host=/…`.
    """

    def __init__(self, url: str) -> None:
        self._behind = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._refusing = False
        self._port = 0
        # How many pieces went through, in either direction.
        self.passed = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """The URL by which the server is reached through this proxy."""
        user, at, _ = self._behind.netloc.rpartition("@")
        return self._behind._replace(netloc=f"{user}{at}127.0.0.1:{self._port}", query="").geturl()

    @property
    def ends(self) -> frozenset[asyncio.StreamWriter]:
        """Both ends of every connection that goes through it now."""
        return frozenset(end for each in self._connections for end in (each.client, each.server))

    def cut(self) -> None:
        """Reset every connection."""
        for end in self.ends:
            end.transport.abort()

    def silence(self, of: bytes = b"", *, to_server_only: bool = False) -> None:
        """Swallow what is sent on the open connections whose clients have said `of`, and close none of them.

        Connections to come pass everything.
        """
        for each in self._connections:
            if of in each.introduction:
                each.deaf = {each.server} if to_server_only else {each.server, each.client}

    def refuse(self) -> None:
        """Reset every connection, also those to come."""
        self._refusing = True
        self.cut()

    def accept(self) -> None:
        """Let new connections through again."""
        self._refusing = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        server_reader, server = await self._connect()
        connection = _Connection(writer, server)
        self._connections.add(connection)
        try:
            await asyncio.gather(self._pass(reader, server, connection), self._pass(server_reader, writer, connection))
        finally:
            self._connections.discard(connection)
            for end in (writer, server):
                end.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        [folder] = parse_qs(self._behind.query).get("host", [""])
        port = self._behind.port or DEFAULT_PORTS[self._behind.scheme]
        if folder:
            return await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}")
        return await asyncio.open_connection(self._behind.hostname, port)

    async def _pass(self, reader: asyncio.StreamReader, to: asyncio.StreamWriter, connection: _Connection) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if to in connection.deaf:
                    continue
                if to is connection.server and len(connection.introduction) < INTRODUCTION_BYTES:
                    connection.introduction += data
                self.passed += 1
                to.write(data)
                await to.drain()
        # One that is deaf is not told either that the other side has hung up.
        if to not in connection.deaf:
            to.transport.abort()
