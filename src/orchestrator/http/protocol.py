"""Answer also what is no HTTP, or too much of it, which no application ever sees, in the one error shape."""

from http import HTTPStatus
from uuid import uuid4

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from common.errors import ErrorCode
from orchestrator.http.errors import problem, response

# The request line and the headers of one request.
MOST_HEAD_BYTES = 64 * 1024
MOST_HEADERS = 100

UNREADABLE = "This is not HTTP/1.1: the request line, a header, the length or a chunk of the body cannot be read."
TOO_LARGE = f"The request line and headers are too large: at most {MOST_HEADERS} headers and {MOST_HEAD_BYTES} bytes."


class HeadTooLarge(HttpParserError):
    """A request begins with more than is kept of any."""


class Protocol(HttpToolsProtocol):
    """Reads HTTP. Who sends what it cannot read, a head without end, or a method that does not exist, is answered and
    cut off.
    """

    _has_told = False
    _untold = 0
    _head_bytes = 0
    _head_count = 0

    def data_received(self, data: bytes) -> None:
        self._has_told = False
        super().data_received(data)
        # The parser keeps a header, in front of the body or behind it, and tells of it only at its end.
        self._untold = 0 if self._has_told else self._untold + len(data)
        if self._untold > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._cut_off(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_told, self._head_bytes, self._head_count = True, 0, 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_count += 1
        self._grow(len(name) + len(value))

    def on_body(self, body: bytes) -> None:
        self._has_told = True
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        if self._is_too_large:
            self._cut_off(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_LARGE)
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

    def _cut_off(self, status: HTTPStatus, message: str) -> None:
        trace_id = uuid4()
        self.logger.warning("request.cut_off", extra={"trace_id": trace_id, "status": status.value})
        answer = response(problem(status, ErrorCode.INVALID_REQUEST, message, trace_id))
        headers = [*answer.raw_headers, (b"x-trace-id", str(trace_id).encode()), (b"connection", b"close")]
        first = f"HTTP/1.1 {status.value} {status.phrase}".encode()
        self.transport.write(
            b"\r\n".join([first, *(b": ".join(header) for header in headers), b"", bytes(answer.body)])
        )
        self.transport.close()
