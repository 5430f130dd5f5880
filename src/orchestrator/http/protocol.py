"""Answer also what is no HTTP, which no application ever sees, in the one error shape."""

from http import HTTPStatus
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from common.errors import ErrorCode
from orchestrator.http.errors import problem, response

MESSAGE = "This is not HTTP/1.1: the request line, a header, the length or a chunk of the body cannot be read."


class Protocol(HttpToolsProtocol):
    """Reads HTTP. Who sends what it cannot read, or a method that does not exist, is answered and cut off."""

    def send_400_response(self, msg: str) -> None:
        trace_id = uuid4()
        self.logger.warning(msg, extra={"trace_id": trace_id})
        answer = response(problem(HTTPStatus.BAD_REQUEST, ErrorCode.INVALID_REQUEST, MESSAGE, trace_id))
        headers = [*answer.raw_headers, (b"x-trace-id", str(trace_id).encode()), (b"connection", b"close")]
        lines = [b"HTTP/1.1 400 Bad Request", *(b": ".join(header) for header in headers), b"", bytes(answer.body)]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()
