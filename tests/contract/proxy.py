"""A TCP proxy that can drop what goes through it."""

import asyncio
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """Listens on a free port of the loopback interface and passes everything on to one server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self.port = 0
        # How many pieces went through, in either direction.
        self.passed = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def netloc_for(self, url: str) -> str:
        """Return the user part of a URL with this proxy's address."""
        user = urlsplit(url).netloc.rpartition("@")[0]
        return f"{user}@127.0.0.1:{self.port}" if user else f"127.0.0.1:{self.port}"

    @property
    def ends(self) -> frozenset[asyncio.StreamWriter]:
        """Both ends of every connection that goes through it now."""
        return frozenset(self._writers)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

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
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, server_writer}
        try:
            await asyncio.gather(self._pass(reader, server_writer), self._pass(server_reader, writer))
        except OSError:
            pass
        finally:
            for one in (writer, server_writer):
                self._writers.discard(one)
                one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self.passed += 1
            writer.write(data)
            await writer.drain()
        writer.transport.abort()
