"""The socket of a connection to RabbitMQ, shared between the client library and those who handle messages themselves.

The library speaks for the connection: it logs in, opens and closes channels, declares, and sends heartbeats. What a
message costs each time (publishes, confirms, deliveries, acknowledgements) goes past it, see `rabbitmq_frames`: whoever
has *tapped* a channel is handed the frames that it takes, within the call that read them from the socket.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, cast

from aio_pika import Connection
from aio_pika.abc import ConnectionParameter
from aiormq.connection import SSLContextProvider, TransportFactory
from aiormq.exceptions import AMQPConnectionError
from pamqp.common import FieldTable
from yarl import URL

from common.broker.base import BrokerUnavailable
from common.broker.rabbitmq_frames import (
    BLOCKED,
    BODY,
    CLOSE,
    HEAD,
    HEADER,
    HEARTBEAT_FRAME,
    METHOD,
    UNBLOCKED,
    NotAFrame,
    body_size,
    end_of_frame,
    method_of,
    read_reason,
)

log = logging.getLogger(__name__)

# The library gives a connection up on which it has seen nothing for long, and it does not see what is tapped.
SIGN_OF_LIFE_SECONDS = 1.0


class Tap(Protocol):
    """Handles some of the frames of a channel. Nothing may be raised but for a broker that breaks the protocol."""

    def takes(self, method: int) -> bool:
        """Say whether frames of this method, and the content that follows one, are for this tap."""
        ...

    def method(self, method: int, payload: bytes) -> bool:
        """Handle a method frame; True when content follows."""
        ...

    def content(self, header: bytes, body: bytes) -> None:
        """Handle the content that followed: the payload of its header frame, and its body."""
        ...


class _Channel:
    """Gives a tap the frames that are its own, and puts the content together that follows a method."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self._has_content = False
        self._header = b""
        self._missing = 0
        self._parts: list[bytes] = []

    def take(self, kind: int, payload: bytes) -> bool:
        """Handle a frame, or return False when it is for the library."""
        if kind == METHOD:
            method = method_of(payload)
            if not self.tap.takes(method):
                return False
            self._has_content = self.tap.method(method, payload)
        elif not self._has_content:
            return False
        elif kind == HEADER:
            self._header, self._missing = payload, body_size(payload)
            if not self._missing:
                self._complete(b"")
        elif kind == BODY:
            self._missing -= len(payload)
            if self._missing > 0:
                self._parts.append(payload)
            elif self._parts:
                self._complete(b"".join((*self._parts, payload)))
            else:
                self._complete(payload)
        return True

    def _complete(self, body: bytes) -> None:
        self._has_content = False
        self._parts.clear()
        self.tap.content(self._header, body)


class Said:
    """What RabbitMQ has said of the whole connection, on channel 0, in passing: why it refuses it, and an alarm."""

    def __init__(self) -> None:
        self.refusal: str | None = None
        self.alarm: str | None = None

    def take(self, kind: int, payload: bytes) -> bool:
        """Note a frame and leave it to the library, except for the alarms: those would stop the library's writing."""
        method = method_of(payload) if kind == METHOD else None
        if method == CLOSE:
            self.refusal = read_reason(payload)
        elif method in (BLOCKED, UNBLOCKED):
            self.alarm = _alarm(read_reason(payload)) if method == BLOCKED else None
            log.warning("broker.alarm", extra={"alarm": self.alarm})
            return True
        return False


def _alarm(reason: str) -> str:
    """Return the alarms that RabbitMQ names, as in "low on memory & disk"."""
    return " and ".join(kind for kind in ("memory", "disk") if kind in reason) + " alarm"


class Wire(asyncio.StreamReaderProtocol):
    """The protocol of the socket, `below`. An exception while it reads closes the connection.

    `was_heard` is set whenever something was read; whoever watches for silence takes it away.
    """

    below: asyncio.Transport

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._clock = loop.time
        self._call_soon = loop.call_soon
        self.said = Said()
        self._channels: dict[int, _Channel | Said] = {0: self.said}
        self._rest = b""
        self._is_amqp = True
        self._outgoing: list[bytes] = []
        self._late: list[Callable[[], bytes]] = []
        self._sign_of_life_due = 0.0
        self.was_heard = False

    def tap(self, channel: int, tap: Tap) -> None:
        """Hand a channel's frames to a tap from now on."""
        self._channels[channel] = _Channel(tap)

    def untap(self, channel: int, tap: Tap) -> None:
        """Leave a channel, which must be closed, to the library again, unless its number has another tap by now."""
        known = self._channels.get(channel)
        if isinstance(known, _Channel) and known.tap is tap:
            del self._channels[channel]

    def write(self, frames: bytes) -> None:
        """Send whole frames, in one write with whatever this turn of the loop sends. Raises `BrokerUnavailable`."""
        self._flush_soon()
        self._outgoing.append(frames)

    def write_late(self, frames: Callable[[], bytes]) -> None:
        """Send frames that are made when this turn of the loop ends. Raises `BrokerUnavailable`."""
        self._flush_soon()
        self._late.append(frames)

    def flush(self) -> None:
        """Send now what waits for the end of this turn."""
        late, self._late = self._late, []
        outgoing = self._outgoing + [make() for make in late]
        self._outgoing = []
        if outgoing and not self.below.is_closing():
            self.below.write(b"".join(outgoing))

    def _flush_soon(self) -> None:
        if self.below.is_closing():
            raise BrokerUnavailable("The connection to RabbitMQ was lost.")
        if not self._outgoing and not self._late:
            self._call_soon(self.flush)

    def abort(self) -> None:
        """Close the socket; what was not sent yet, is not sent any more."""
        self._outgoing.clear()
        self._late.clear()
        self.below.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not every event loop's transports are of asyncio's classes.
        self.below = cast("asyncio.Transport", transport)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.was_heard = True
        data = self._rest + data
        self._rest = b""
        if self._is_amqp:
            try:
                data = self._pick(data)
            except NotAFrame:
                if len(self._channels) > 1:
                    raise
                # It refuses to speak AMQP with us at all, and the library knows what to say to that.
                self._is_amqp = False
        if data:
            super().data_received(data)

    def _pick(self, data: bytes) -> bytes:
        """Hand over what is tapped, keep what is the beginning of a frame, and return everything else."""
        others: list[bytes] = []
        begin = left = 0
        while (end := end_of_frame(data, begin)) <= len(data):
            kind, number, _ = HEAD.unpack_from(data, begin)
            channel = self._channels.get(number)
            if channel is not None and channel.take(kind, data[begin + HEAD.size : end - 1]):
                others.append(data[left:begin])
                left = end
            begin = end
        self._rest = data[begin:]
        if left == 0:
            return data[:begin]
        others.append(data[left:begin])
        if self._clock() >= self._sign_of_life_due:
            self._sign_of_life_due = self._clock() + SIGN_OF_LIFE_SECONDS
            others.append(HEARTBEAT_FRAME)
        return b"".join(others)


class WireWriter(asyncio.StreamWriter):
    """Writes for the library, after everything that was written before it."""

    def __init__(self, wire: Wire, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(wire.below, wire, reader, loop)
        self._wire = wire

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._wire.flush()
        super().write(data)


class _WireFactory(TransportFactory):
    """Makes the socket of one connection; `wire` is there once it is connected."""

    wire: Wire

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider: SSLContextProvider = kwargs.pop("ssl_context_provider")
        ssl = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        try:
            _, self.wire = await loop.create_connection(
                lambda: Wire(reader, loop), host=url.host or "", port=url.port or 0, ssl=ssl, **kwargs
            )
        except OSError as failure:
            raise AMQPConnectionError(*failure.args) from failure
        return reader, WireWriter(self.wire, reader, loop)


class WiredConnection(Connection):
    """A connection of the library whose socket can be tapped."""

    PARAMETERS = (
        *Connection.PARAMETERS,
        ConnectionParameter(name="transport_factory", parser=lambda factory: factory, is_kwarg=True),
    )

    def __init__(self, url: URL, *, client_properties: FieldTable) -> None:
        self._factory = _WireFactory()
        super().__init__(url, client_properties=client_properties, transport_factory=self._factory)

    def __del__(self) -> None:
        """Do nothing: the library would close what is forgotten in a task of whatever loop runs then, or of none."""

    @property
    def refusal(self) -> str | None:
        """Why RabbitMQ closed the connection, if it said so."""
        wire = getattr(self._factory, "wire", None)
        return None if wire is None else wire.said.refusal

    @property
    def heartbeat(self) -> timedelta:
        """The heartbeat timeout that both sides agreed upon, once it is connected; zero for none."""
        assert self.transport is not None
        return timedelta(seconds=self.transport.connection.connection_tune.heartbeat or 0)

    @property
    def wire(self) -> Wire:
        """The socket, once it is connected."""
        return self._factory.wire
