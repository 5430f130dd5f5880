"""Bodies that are not read before their route: an upload is written to disk as it comes, whatever its size.

All other bodies are JSON, are read whole and have small limits (`http.limits`, `http.strict`).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import Invalid, InvalidField

UPLOADS = "/api/v1/uploads"
CONTENT_TYPE = "application/octet-stream"
_STATE = "stream"
# Of a body that is aside nothing else may read or count anything.
_ABOUT_THE_BODY = frozenset({b"content-length", b"content-type", b"content-encoding", b"transfer-encoding"})


class UploadCutOff(Invalid):
    """The client went away before all of the body had come."""

    def __init__(self) -> None:
        super().__init__("body: it ended before all of it had come.")


@dataclass(frozen=True, slots=True)
class Stream:
    """A body that has not been read, and the headers that came with it."""

    receive: Receive
    headers: Headers

    @property
    def announced(self) -> int:
        """How many bytes its client says that it has; 0 when it does not say."""
        given = self.headers.get("content-length", "0")
        return int(given) if given.isascii() and given.isdigit() else 0

    def check(self) -> None:
        """Raise `InvalidField` for a body that is not sent as the bytes that it is."""
        kinds = self.headers.getlist("content-type")
        if len(kinds) != 1 or kinds[0].strip().lower() != CONTENT_TYPE:
            sent = " and ".join(map(repr, kinds)) or "missing"
            raise InvalidField("header.content-type", f"is {sent}: send {CONTENT_TYPE}, the bytes as they are")
        encoding = self.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise InvalidField("header.content-encoding", f"is {encoding!r}: send the bytes as they are")

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises `UploadCutOff`."""
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                raise UploadCutOff
            if body := message.get("body", b""):
                yield body
            if not message.get("more_body", False):
                return


class Streams:
    """Puts the body of an upload aside for its route; to everything in between the request has none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", UPLOADS):
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})[_STATE] = Stream(receive, Headers(scope=scope))
        headers = [(name, value) for name, value in scope["headers"] if name not in _ABOUT_THE_BODY]
        await self._app({**scope, "headers": headers}, _nothing, send)


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def stream_of(scope: Scope) -> Stream:
    """Return the body of an upload, which `Streams` has put aside."""
    stream: Stream = scope["state"][_STATE]
    return stream
