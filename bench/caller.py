"""A caller of Chiffon that costs little: the caller must not be what is measured."""

import asyncio
import json
from urllib.parse import urlsplit
from uuid import uuid4


class Refused(Exception):
    """The orchestrator answered with something else than success."""


class Caller:
    """One connection that is kept open, and requests that are written by hand."""

    def __init__(self, url: str, token: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname, place.port
        self._head = f"host: {place.netloc}\r\ncontent-type: application/json\r\nauthorization: Bearer {token}\r\n"

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)

    async def post(self, path: str, body: object) -> None:
        """Send a request and read its answer to the end. Raises `Refused`."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\n{self._head}content-length: {len(content)}\r\n\r\n"
        self._writer.write(head.encode() + content)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = next(int(line[15:]) for line in answer.split(b"\r\n") if line.startswith(b"content-length:"))
        text = await self._reader.readexactly(length)
        if not answer.startswith(b"http/1.1 2"):
            raise Refused(f"{path}: {answer.splitlines()[0]!r}: {text[:300]!r}")

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def new_task() -> dict[str, object]:
    return {"task_id": str(uuid4()), "work_type": "echo", "parameters": {"message": "x"}}
