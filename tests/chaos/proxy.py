"""A TCP proxy on the way of an agent, to the broker or to an orchestrator, that does what networks do."""

import asyncio
from enum import StrEnum
from types import TracebackType
from typing import Self

DELAY_SECONDS = 0.3
SLICE_BYTES = 7


class Mode(StrEnum):
    """What happens to what passes through."""

    PASS = "pass"
    REFUSE = "refuse"
    BLACKHOLE = "blackhole"
    DROP_TO_BROKER = "drop_to_broker"
    DROP_TO_AGENT = "drop_to_agent"
    HALF_OPEN = "half_open"
    STALL = "stall"
    DELAY = "delay"
    SLICE = "slice"


DROPS_TO_BROKER = {Mode.BLACKHOLE, Mode.DROP_TO_BROKER, Mode.HALF_OPEN}
DROPS_TO_AGENT = {Mode.BLACKHOLE, Mode.DROP_TO_AGENT, Mode.HALF_OPEN}


class Link:
    """Listens on an address and passes everything on to one server, in the way that `mode` says.

    Lost bytes cannot be made up for, so a connection that lost some is reset when the fault heals, as a real one would
    be once a side notices.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter | None]] = set()
        self._harmed: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.mode = Mode.PASS
        self.port = 0

    async def open(self, host: str = "127.0.0.1") -> None:
        self._server = await asyncio.start_server(self._serve, host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        if self._server is None:
            await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self.heal()
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every connection."""
        for pair in tuple(self._pairs):
            for writer in pair:
                if writer is not None:
                    writer.transport.abort()

    def begin(self, mode: Mode) -> None:
        """Begin a fault."""
        self.mode = mode
        if mode is Mode.REFUSE:
            self.cut()
        if mode is Mode.STALL:
            self._flowing.clear()
        if mode is Mode.HALF_OPEN:
            for client, server in tuple(self._pairs):
                self._harmed.add(client)
                if server is not None:
                    server.transport.abort()

    def heal(self) -> None:
        """Pass everything again, and reset the connections that have lost something."""
        self.mode = Mode.PASS
        self._flowing.set()
        for writer in tuple(self._harmed):
            writer.transport.abort()
        self._harmed.clear()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self.mode is Mode.REFUSE:
            client.transport.abort()
            return
        try:
            server_reader, server = await asyncio.open_connection(*self._target)
        except OSError:
            client.transport.abort()
            return
        pair = (client, server)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pass(reader, server, client, DROPS_TO_BROKER),
                self._pass(server_reader, client, client, DROPS_TO_AGENT),
            )
        finally:
            self._pairs.discard(pair)
            self._harmed.discard(client)
            client.transport.abort()
            server.transport.abort()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        drops: set[Mode],
    ) -> None:
        try:
            while data := await reader.read(65_536):
                if self.mode in drops or client in self._harmed:
                    self._harmed.add(client)
                    continue
                await self._flowing.wait()
                if self.mode is Mode.DELAY:
                    await asyncio.sleep(DELAY_SECONDS)
                step = SLICE_BYTES if self.mode is Mode.SLICE and len(data) < 4096 else len(data)
                for begin in range(0, len(data), step):
                    writer.write(data[begin : begin + step])
                    await writer.drain()
        except OSError:
            pass
        # A side that hangs up is heard by the other one, unless the network has stopped to carry anything.
        if self.mode in drops or client in self._harmed:
            self._harmed.add(client)
        else:
            writer.transport.abort()
