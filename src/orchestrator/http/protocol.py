"""Read HTTP within limits of size, number and time; answer what no application sees in the one error shape."""

import asyncio
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from httptools import HttpParserError
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from common.errors import ErrorCode
from orchestrator.http.connections import CONNECTION, FULL, Connection, Connections, reset
from orchestrator.http.context import PROTECTIVE
from orchestrator.http.errors import AGAIN_SOON, problem, response

# The request line and the headers of one request.
MOST_HEAD_BYTES = 64 * 1024
MOST_HEADERS = 100
# A head must be complete so long after the connection was opened, or after the answer before it.
HEAD_SECONDS = 10.0
# A body must go on after so long, and be sent at this rate once as much time has passed.
BODY_SECONDS = 10.0
LEAST_BODY_BYTES_PER_SECOND = 1024
# Requests of one connection that wait for the answers to earlier ones.
MOST_PIPELINED = 32

UNREADABLE = "This is not HTTP/1.1: the request line, a header, the length or a chunk of the body cannot be read."
TOO_LARGE = f"The request line and headers are too large: at most {MOST_HEADERS} headers and {MOST_HEAD_BYTES} bytes."
TWO_HOSTS = "The Host header is there more than once."
TOO_MANY = f"Too many requests were sent without waiting for an answer: at most {MOST_PIPELINED} may wait."
HEAD_LATE = "The request line and headers were not complete in time."
BODY_LATE = "The body did not arrive in time."

CODES = {
    HTTPStatus.TOO_MANY_REQUESTS: ErrorCode.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE: ErrorCode.UNAVAILABLE,
}


class HeadTooLarge(HttpParserError):
    """A request begins with more than is kept of any."""


class TwoHosts(HttpParserError):
    """A request says twice whom it is for, and a proxy in front may have read the other one (RFC 9112, 3.2)."""


class TooManyPipelined(HttpParserError):
    """A client sends more requests than may wait for their answers."""


class Protocol(HttpToolsProtocol):
    """Reads HTTP, and closes the connection of a client that sends what cannot be read, too much or too slowly."""

    _has_told = False
    _untold = 0
    _head_bytes = 0
    _head_count = 0
    _host_count = 0
    # Whether a request has begun whose head is not complete.
    _reads_head = False
    # When the server began to wait for what it waits for: a head, or a body.
    _since = 0.0
    _body_bytes = 0
    _body_moved = 0.0
    # The request that the application answers, if any; others wait in the pipeline.
    _running: RequestResponseCycle | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
        connection: Connection | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._connections = connections
        self._connection = connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = now = self.loop.time()
        if self._connection is None:
            self._connection = self._connections.enter(self, self.client[0] if self.client else "", now=now)
        else:
            self._connection.holder = self
        if self._connection is None:
            self._cut_off(HTTPStatus.SERVICE_UNAVAILABLE, FULL)
            return
        # Each request gets a copy, and so does a WebSocket that this connection turns into.
        self.app_state = {**self.app_state, CONNECTION: self._connection}

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_running()
        if self._connection is not None:
            self._connections.leave(self._connection)

    def check(self, now: float, *, is_stuck: bool) -> None:
        """Close the connection if its client is late with a head or a body, or takes nothing of its answer."""
        if is_stuck:
            reset(self.transport)
        elif self.cycle is None or self.cycle.response_complete:
            # The next head is due; or the rest of a body that nothing reads.
            if now - self._since > HEAD_SECONDS:
                self._end_silence()
        elif self.cycle.more_body:
            self._check_body(now)

    def _end_silence(self) -> None:
        if self._reads_head:
            self._cut_off(HTTPStatus.REQUEST_TIMEOUT, HEAD_LATE)
        else:  # nothing was asked, or what was asked has been answered
            self.transport.close()

    def _check_body(self, now: float) -> None:
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            # The client waits for the server.
            self._since = self._body_moved = now
            self._body_bytes = 0
            return
        patience = BODY_SECONDS + self._body_bytes / LEAST_BODY_BYTES_PER_SECOND
        if now - self._body_moved > BODY_SECONDS or now - self._since > patience:
            self._cut_off(HTTPStatus.REQUEST_TIMEOUT, BODY_LATE)

    def turn_away(self, status: HTTPStatus, message: str) -> None:
        """Close the connection to make room for another."""
        self._cut_off(status, message)

    def data_received(self, data: bytes) -> None:
        self._has_told = False
        super().data_received(data)
        # The parser keeps a header, in front of the body or behind it, and tells of it only at its end.
        self._untold = 0 if self._has_told else self._untold + len(data)
        if self._untold > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._cut_off(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_told, self._head_bytes, self._head_count, self._host_count = True, 0, 0, 0
        self._reads_head = True

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer is no header (RFC 9110, 6.5.1): it comes behind the body, where no proxy has looked for a token, an
        # address or an origin.
        if self._reads_head:
            super().on_header(name, value)
            self._host_count += name.lower() == b"host"
        self._head_count += 1
        self._grow(len(name) + len(value))

    def on_headers_complete(self) -> None:
        if self._host_count > 1:
            raise TwoHosts(TWO_HOSTS)
        if len(self.pipeline) >= MOST_PIPELINED:
            raise TooManyPipelined(TOO_MANY)
        self._reads_head = False
        self._since = self._body_moved = self.loop.time()
        self._body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_told = True
        self._body_bytes += len(body)
        self._body_moved = self.loop.time()
        super().on_body(body)

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._connection is not None:
            self._connection.moved = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        if self._is_too_large:
            self._cut_off(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_LARGE)
        elif len(self.pipeline) >= MOST_PIPELINED:
            self._cut_off(HTTPStatus.TOO_MANY_REQUESTS, TOO_MANY)
        elif self._host_count > 1:
            self._cut_off(HTTPStatus.BAD_REQUEST, TWO_HOSTS)
        else:
            self._cut_off(HTTPStatus.BAD_REQUEST, UNREADABLE)

    @property
    def _is_too_large(self) -> bool:
        return self._head_bytes > MOST_HEAD_BYTES or self._head_count > MOST_HEADERS

    def _grow(self, size: int) -> None:
        self._has_told = True
        self._head_bytes += size
        if self._is_too_large:
            raise HeadTooLarge(TOO_LARGE)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _end_running(self) -> None:
        """Tell the application that nobody waits for its answer; uvicorn tells only that of the last request."""
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()

    def _cut_off(self, status: HTTPStatus, message: str) -> None:
        """Close the connection, with an answer unless an earlier request of it has not been answered in full."""
        trace_id = uuid4()
        self.logger.warning("request.cut_off", extra={"trace_id": trace_id, "status": status.value})
        if self.cycle is not None and not self.cycle.response_complete:
            if self.pipeline or self.cycle.response_started:
                self.transport.abort()
                return
            # The application must not answer behind this answer.
            self._end_running()
        answer = response(
            problem(status, CODES.get(status, ErrorCode.INVALID_REQUEST), message, trace_id),
            AGAIN_SOON if status in CODES else None,
        )
        headers = [
            *answer.raw_headers, *PROTECTIVE, (b"x-trace-id", str(trace_id).encode()), (b"connection", b"close")
        ]  # fmt: skip
        first = f"HTTP/1.1 {status.value} {status.phrase}".encode()
        self.transport.write(
            b"\r\n".join([first, *(b": ".join(header) for header in headers), b"", bytes(answer.body)])
        )
        self.transport.close()
