"""As much of HTTP/1.1 as a proxy needs to read requests and to write answers."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

LONGEST_HEAD = 65_536
LARGEST_BODY = 8 * 1024 * 1024


class Malformed(Exception):
    """The worker sent what is no HTTP/1.1 request; the message says why."""


@dataclass(frozen=True, slots=True)
class RawRequest:
    """One request; the names of the headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def keeps_open(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> RawRequest | None:
    """Return the next request; None when the connection was closed before it. Raises `Malformed`."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise Malformed("the connection was closed within the head of a request") from None
        return None
    except asyncio.LimitOverrunError:
        raise Malformed(f"the head of a request is longer than {LONGEST_HEAD} bytes") from None
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3:
        raise Malformed(f"no request line: {first[:100]!r}")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name
    }
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return RawRequest(parts[0], parts[1], headers, await _read_body(reader, headers))


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    try:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return await _read_chunks(reader)
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= LARGEST_BODY:
            raise Malformed(f"a body of {length} bytes; at most {LARGEST_BODY} are read")
        return await reader.readexactly(length)
    except ValueError:
        raise Malformed("the length of the body is no number") from None
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise Malformed("the connection was closed within the body of a request") from None


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        if not 0 < size <= LARGEST_BODY - len(body):
            raise Malformed(f"a chunk of {size} bytes; a body of at most {LARGEST_BODY} is read")
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return body


def answer(status: int, content: bytes, *, content_type: str) -> bytes:
    """Return an answer as it goes over the wire."""
    head = f"HTTP/1.1 {status} -\r\ncontent-type: {content_type}\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content
