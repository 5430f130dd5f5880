"""Many readers of Chiffon's feed in one process, each a WebSocket that costs as little as it can.

Prints a line of JSON when all are connected, and one at the end, when nothing more comes. Of many readers some are
timed: what the others get is read and thrown away.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from datetime import datetime
from typing import cast
from urllib.parse import urlsplit
from uuid import NAMESPACE_OID, UUID, uuid5

import uvloop

from bench.chiffon_server import TOKEN, URL

TIMED = 20
AT_ONCE = 50
SILENCE = 3.0
PATIENCE = 60.0
TEXT, PING, PONG = 0x81, 0x89, 0x8A
# A ping of the server has four bytes of content, and no text of the bench holds these two bytes in a row: so pings are
# found without a look at each frame.
PING_HEAD = bytes([PING, 4])
PING_SIZE = 6
# One for all readers of a process: what is read is looked at before the next one reads.
READ = bytearray(1024 * 1024)
BUFFER = memoryview(READ)


def trace_of(number: int) -> UUID:
    """Return the trace that a reader follows."""
    return uuid5(NAMESPACE_OID, f"reader {number}")


class Reader(asyncio.BufferedProtocol):
    """One WebSocket, spoken by hand (RFC 6455): no extension is offered, so frames are texts behind a short head.

    Of one that is not timed only the bytes are counted, so that thousands cost little.
    """

    def __init__(self, place: str, path: str, token: str, *, is_timed: bool) -> None:
        self.late_ms: list[float] = []
        self.heard_at = 0.0
        self.event_bytes = 0
        self.is_open = True
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_timed = is_timed
        self._waiting = b""
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {place}\r\nAuthorization: Bearer {token}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self.transport.write(self._request.encode())

    def get_buffer(self, sizehint: int) -> memoryview:
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self.connected.done() and not self.is_timed:
            self._count(nbytes)
        elif self.connected.done():
            self._read(bytes(BUFFER[:nbytes]))
        else:
            self._open(bytes(BUFFER[:nbytes]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if not self.connected.done():
            self.connected.set_exception(exc or ConnectionError("closed before it began"))

    def _open(self, data: bytes) -> None:
        """Wait for the answer to the handshake, and for the first frame, which says hello."""
        self._waiting += data
        head, end, frame = self._waiting.partition(b"\r\n\r\n")
        if end and not head.startswith(b"HTTP/1.1 101"):
            self.connected.set_exception(ConnectionError(head.splitlines()[0].decode()))
        elif len(frame) >= 2 and len(frame) >= 2 + frame[1]:
            self.connected.set_result(None)
            self._waiting = b""

    def _count(self, size: int) -> None:
        if (at := READ.find(PING, 0, size)) >= 0 and (at := READ.find(PING_HEAD, at, size)) >= 0:
            # One that is cut in two is rare; when it stays without an answer, its reader is counted as dropped.
            self._answer(bytes(BUFFER[at + 2 : at + PING_SIZE]))
            size -= PING_SIZE
        self.event_bytes += size

    def _answer(self, content: bytes) -> None:
        """Answer a ping: whoever does not is taken for dead. The mask of a client's frame may be zeros."""
        self.transport.write(bytes([PONG, 0x80 | len(content), 0, 0, 0, 0]) + content)

    def _read(self, data: bytes) -> None:
        now = time.time()
        waiting = self._waiting + data
        begin = 0
        while len(waiting) - begin >= 2:
            size, head = waiting[begin + 1], 2
            if size >= 126:
                head = 4 if size == 126 else 10
                size = int.from_bytes(waiting[begin + 2 : begin + head], "big")
            end = begin + head + size
            if len(waiting) < end:
                break
            if waiting[begin] == PING:
                self._answer(waiting[begin + head : end])
            else:
                self.event_bytes += end - begin
            if waiting[begin] == TEXT:
                frame = json.loads(waiting[begin + head : end])
                if frame["type"] == "event":
                    self.heard_at = time.monotonic()
                    self.late_ms.append((now - datetime.fromisoformat(frame["event"]["at"]).timestamp()) * 1000)
            begin = end
        self._waiting = waiting[begin:]


async def connect(url: str, token: str, numbers: Sequence[int]) -> list[Reader]:
    """Return a reader for each number, following the trace of that number."""
    place = urlsplit(url)
    loop = asyncio.get_running_loop()
    # Those that follow traces of their own see little, and all of it is looked at.
    every = 1 if len(set(numbers)) == len(numbers) else max(1, len(numbers) // TIMED)
    readers: list[Reader] = []

    async def one(position: int, number: int) -> None:
        reader = Reader(place.netloc, f"/ws/{trace_of(number)}", token, is_timed=position % every == 0)
        await loop.create_connection(lambda: reader, place.hostname or "127.0.0.1", place.port or 80)
        async with asyncio.timeout(PATIENCE):
            await reader.connected
        readers.append(reader)

    for begin in range(0, len(numbers), AT_ONCE):
        await asyncio.gather(*(one(at, numbers[at]) for at in range(begin, min(begin + AT_ONCE, len(numbers)))))
    return readers


async def run(numbers: Sequence[int], *, stuck: int, longest: float) -> None:
    readers = await connect(os.environ[URL], os.environ[TOKEN], numbers)
    reading, others = readers[: len(readers) - stuck], readers[len(readers) - stuck :]
    for reader in others:
        reader.transport.pause_reading()
    began = time.monotonic()
    print(json.dumps("connected"), flush=True)
    while time.monotonic() < began + longest:
        await asyncio.sleep(0.2)
        heard = [reader.heard_at for reader in readers if reader.late_ms]
        if heard and max(heard) < time.monotonic() - SILENCE:
            break
    timed = [reader for reader in reading if reader.is_timed]
    said = {
        "timed": len(timed),
        "late_ms": [value for reader in timed for value in reader.late_ms],
        "bytes": [reader.event_bytes for reader in readers],
        "closed": sum(not reader.is_open for reader in readers),
    }
    print(json.dumps(said), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--first", type=int, default=0, help="the number of the first reader")
    parser.add_argument("--own-traces", action="store_true", help="each follows a trace of its own")
    parser.add_argument("--stuck", type=int, default=0, help="how many stop to read")
    parser.add_argument("--longest", type=float, required=True)
    given = parser.parse_args()
    numbers = [given.first + at if given.own_traces else 0 for at in range(given.count)]
    uvloop.run(run(numbers, stuck=given.stuck, longest=given.longest))


if __name__ == "__main__":
    main()
