"""WebSockets as they are served: frames that many readers get are made once, and written straight to each.

RFC 6455: a server's text frame is a short head and the text, the same for every reader.
"""

from asyncio import BaseTransport
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol
from uuid import uuid4

from starlette.types import Scope
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request, Response

from common.errors import ErrorCode
from orchestrator.http.connections import CONNECTION, Connection
from orchestrator.http.context import PROTECTIVE
from orchestrator.http.errors import problem, response

# Where a WebSocket's wire is found in its scope; a server that is not this one offers none.
EXTENSION = "chiffon"

TEXT = 0x81
SHORT, MEDIUM = 126, 127
LONGEST_MEDIUM = 0xFFFF

# A reader that answers no ping is told so, and cut off when even that cannot be sent.
GIVE_UP_SECONDS = 10.0
# The application must have answered the request for a WebSocket after so long.
ANSWER_SECONDS = 30.0


class Wire(Protocol):
    """An open WebSocket below its protocol. `on_ready` is called whenever it takes more again."""

    on_ready: Callable[[], None]
    # Whether more may be written; otherwise what was written waits for the reader.
    is_ready: bool

    def write_frames(self, frames: bytes) -> None:
        """Write whole frames, as `framed` makes them; does nothing when the WebSocket is closed, or being closed."""
        ...


class WebSockets(WebSocketsSansIOProtocol):
    """Serves a WebSocket, and offers the app its wire."""

    on_ready: Callable[[], None] = staticmethod(lambda: None)
    is_ready = True

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._connection: Connection = self.app_state[CONNECTION]
        self._connection.holder = self
        self._asked_at = self.loop.time()
        send = self.conn.send_response

        def send_response(answer: Response) -> None:
            if answer.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
                _in_one_shape(answer)
            send(answer)

        self.conn.send_response = send_response  # type: ignore[assignment, method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection.connections.leave(self._connection)

    def check(self, now: float, *, is_stuck: bool) -> None:
        """Cut off a WebSocket that is not opened in time; pings watch over open ones."""
        if not self.handshake_complete and now - self._asked_at > ANSWER_SECONDS:
            self.transport.abort()

    def turn_away(self, status: HTTPStatus, message: str) -> None:
        """Cut off a WebSocket whose caller is not known, to make room for another connection."""
        self.transport.abort()

    def write_frames(self, frames: bytes) -> None:
        if not (self.close_sent or self.transport.is_closing()):
            self.transport.write(frames)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"] = {**(self.scope["extensions"] or {}), EXTENSION: {"wire": self}}

    def pause_writing(self) -> None:
        super().pause_writing()
        self.is_ready = False

    def resume_writing(self) -> None:
        super().resume_writing()
        self.is_ready = True
        self.on_ready()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        # A transport is closed when everything is sent, and who reads nothing would keep it open for ever.
        self.loop.call_later(GIVE_UP_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if not self.disconnected:
            self.transport.abort()


def _in_one_shape(answer: Response) -> None:
    """Give the refusal of a WebSocket the shape of every error."""
    status, trace_id = HTTPStatus(answer.status_code), uuid4()
    message = "This is no request for a WebSocket that can be opened here."
    body = response(problem(status, ErrorCode.INVALID_REQUEST, message, trace_id))
    answer.body = bytes(body.body)
    for name, value in (*body.raw_headers, *PROTECTIVE, (b"x-trace-id", str(trace_id).encode())):
        answer.headers.pop(name.decode(), None)
        answer.headers[name.decode()] = value.decode()


def wire_of(scope: Scope) -> Wire | None:
    """Return the wire of a WebSocket, where its server offers one."""
    wire: Wire | None = scope.get("extensions", {}).get(EXTENSION, {}).get("wire")
    return wire


def framed(text: bytes) -> bytes:
    """Return the frame that carries a text."""
    size = len(text)
    if size < SHORT:
        return bytes((TEXT, size)) + text
    if size <= LONGEST_MEDIUM:
        return bytes((TEXT, SHORT)) + size.to_bytes(2) + text
    return bytes((TEXT, MEDIUM)) + size.to_bytes(8) + text
