"""How a content is sent: a part of it where one is asked for, and never as something that a browser would run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol
from urllib.parse import quote
from uuid import UUID

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from common.errors import ErrorCode
from orchestrator.http.errors import problem, response

CHUNK_BYTES = 256 * 1024
# The types of artifacts that are text; what work keeps besides may be anything.
TEXTS = frozenset({"patch_diff", "build_log", "verify_log", "rollback_log", "metrics", "plan_snapshot"})
# What a browser makes of it if it is ever shown: nothing.
POLICY = "default-src 'none'; sandbox"
_ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._+-]")


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `start` to before `end` of a content."""

    start: int
    end: int


class NoSuchPart(Exception):
    """A range begins behind the end of the content."""


def part_of(header: str | None, size: int) -> Part | None:
    """Return what a Range header asks for (RFC 9110, 14); None for the whole. Raises `NoSuchPart`.

    A header that is wrong, or asks for several parts, is answered with the whole, as the RFC allows.
    """
    found = None if header is None else _ONE_RANGE.fullmatch(header.strip())
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        last = int(found[2])
        if last == 0 or size == 0:
            raise NoSuchPart
        return Part(max(0, size - last), size)
    start = int(found[1])
    if found[2] != "" and int(found[2]) < start:
        return None
    if start >= size:
        raise NoSuchPart
    return Part(start, size if found[2] == "" else min(int(found[2]) + 1, size))


def headers_for(name: str, type: str, sha256: str) -> dict[str, str]:
    """Return the headers of a download, whatever part of it is sent."""
    file = name.rpartition("/")[2]
    plain, escaped = _NOT_PLAIN.sub("_", file), quote(file, safe="")
    return {
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{escaped}",
        "content-security-policy": POLICY,
        "content-type": "text/plain; charset=utf-8" if type in TEXTS else "application/octet-stream",
        "etag": f'"{sha256}"',
    }


class Opened(Protocol):
    """A content that is open."""

    @property
    def size(self) -> int: ...

    async def read(self, offset: int, size: int) -> bytes:
        """Return so many bytes from there on, fewer at the end."""
        ...

    def close(self) -> None:
        """Read no more."""
        ...


class Download(Response):
    """Sends a part of a content, and closes it whatever happens."""

    def __init__(self, content: Opened, part: Part, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        super().__init__(status_code=status, headers={**headers, "content-length": str(part.end - part.start)})
        self._content = content
        self._part = part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            at = self._part.start
            while at < self._part.end:
                data = await self._content.read(at, min(CHUNK_BYTES, self._part.end - at))
                if not data:
                    raise EOFError("the content became shorter while it was sent")
                at += len(data)
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._content.close()


def download(content: Opened, headers: Mapping[str, str], asked: Headers, trace_id: UUID) -> Response:
    """Return the answer to a request for a content, which is closed when it is sent, or before."""
    size, etag = content.size, headers["etag"]
    if _names(asked.get("if-none-match"), etag):
        content.close()
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=dict(headers))
    # A part of another content would not fit to the part that the client has.
    is_same = asked.get("if-range", etag) == etag
    try:
        part = part_of(asked.get("range"), size) if is_same else None
    except NoSuchPart:
        content.close()
        message = f"header.range: must begin within the {size} bytes that there are"
        status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        return response(
            problem(status, ErrorCode.INVALID_REQUEST, message, trace_id), {"content-range": f"bytes */{size}"}
        )
    if part is None:
        return Download(content, Part(0, size), HTTPStatus.OK, headers)
    between = {"content-range": f"bytes {part.start}-{part.end - 1}/{size}"}
    return Download(content, part, HTTPStatus.PARTIAL_CONTENT, {**headers, **between})


def _names(header: str | None, etag: str) -> bool:
    """Return whether an If-None-Match header names a content."""
    given = [] if header is None else [one.strip().removeprefix("W/") for one in header.split(",")]
    return "*" in given or etag in given
