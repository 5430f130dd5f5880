"""Send what a task writes while it runs.

The first output goes out at once; after that it is collected for a moment or until there is enough of it. Output that
is not sent yet is bounded: beyond the bound `write` waits, the pipe fills, and the process itself is slowed down. So an
outage of the broker costs the process time, never the agent memory. A program that writes faster than it may is slowed
down in the same way.

Secrets are hidden before anything else happens to the output. What may be the beginning of one waits for more, but only
for a moment.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from agents.output.chunks import Chunker
from agents.output.pace import Pace
from common.messages import MAX_CHUNK_BYTES, OutputChunk, Stream
from common.redaction.stream import Redactor
from common.redaction.text import redacted
from common.redaction.values import Values

COLLECT_SECONDS = 0.1
COLLECT_BYTES = 64 * 1024
MAX_UNSENT_BYTES = 1024 * 1024
# How long the beginning of what may be a secret is held back when nothing follows it.
IDLE_SECONDS = 0.3

SendChunks = Callable[[Sequence[OutputChunk]], Awaitable[None]]


class LogStream:
    """The output of one attempt. `send` returns when the chunks are stored by the broker.

    Of each stream `limit` bytes are sent, all if it is None; see `Chunker`. In a second `per_second` bytes may come,
    over both streams; None: as many as there are. `known` are the agent's secrets; those of the attempt itself are
    added with `hide`.
    """

    def __init__(
        self,
        send: SendChunks,
        *,
        limit: int | None = None,
        per_second: int | None = None,
        known: Values | None = None,
    ) -> None:
        self._send = send
        self._secrets = Values(parent=known)
        self._redactors: dict[Stream, Redactor] = {}
        self._idle: dict[Stream, asyncio.TimerHandle] = {}
        self._chunker = Chunker(limit=limit)
        self._pace = None if per_second is None else Pace(per_second)
        self._in_flight: list[OutputChunk] = []
        self._in_flight_bytes = 0
        self._rest: deque[list[OutputChunk]] = deque()
        self._has_sent = False
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()
        self._room = asyncio.Event()
        self._closing = False
        self._starting: asyncio.Handle | None = None
        self._sender: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_waiting()
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)

    @property
    def tail(self) -> str:
        return self._chunker.tail

    @property
    def totals(self) -> dict[Stream, int]:
        return self._chunker.totals

    @property
    def dropped(self) -> dict[Stream, int]:
        return self._chunker.dropped

    @property
    def has_sent(self) -> bool:
        """Whether some output went ahead of the result."""
        return self._has_sent

    @property
    def is_done(self) -> bool:
        """Whether the output is finished and nothing of it has to go ahead of the result: `close` returns at once."""
        return self._closing and not self._in_flight and len(self._rest) <= 1

    @property
    def secrets(self) -> Values:
        """The values that are hidden in it."""
        return self._secrets

    def hide(self, *values: str) -> None:
        """Hide these values, too, in all that is written from now on."""
        self._secrets.hide(*values)

    def redacted(self, text: str) -> str:
        """Return a text that goes the same way as the output without the secrets in it."""
        return redacted(text, self._secrets)

    async def write(self, stream: Stream, data: bytes) -> None:
        """Take in output; waits while too much of it is unsent, or came too fast."""
        redactor = self._redactors.get(stream)
        if redactor is None:
            redactor = self._redactors[stream] = Redactor(self._secrets)
        self._take(stream, redactor.feed(data))
        if (idle := self._idle.pop(stream, None)) is not None:
            idle.cancel()
        if redactor.holds:
            self._idle[stream] = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._let_go, stream)
        while self._chunker.pending + self._in_flight_bytes > MAX_UNSENT_BYTES:
            if self._failure is not None:
                raise self._failure
            self._room.clear()
            await self._room.wait()
        if self._pace is not None:
            pause = self._pace.take(len(data), now=asyncio.get_running_loop().time())
            if pause > 0:
                await asyncio.sleep(pause)

    def finish(self) -> list[OutputChunk]:
        """No more output will come: return all that is not known to be stored, cut as it is going to be sent."""
        if not self._closing:
            self._stop_waiting()
            for stream, redactor in self._redactors.items():
                self._chunker.feed(stream, redactor.flush())
            self._chunker.finish()
            while chunks := self._chunker.take(MAX_CHUNK_BYTES):
                self._rest.append(chunks)
            self._closing = True
            self._arrived.set()
            self._enough.set()
        return [*self._in_flight, *(chunk for chunks in self._rest for chunk in chunks)]

    async def close(self) -> list[OutputChunk]:
        """Finish, and return the last chunks, which were not sent, when all others are stored."""
        self.finish()
        if self._sender is None and len(self._rest) > 1:
            self._sender = asyncio.create_task(self._work(), name="log_stream")
        if self._sender is not None:
            await self._sender
        return self._rest.popleft() if self._rest else []

    def _take(self, stream: Stream, data: bytes) -> None:
        self._chunker.feed(stream, data)
        if self._starting is None and self._chunker.pending:
            # In the next turn: work that ends in this one sends all its output with its result.
            self._starting = asyncio.get_running_loop().call_soon(self._start_sending)
        self._arrived.set()
        if self._chunker.pending >= COLLECT_BYTES:
            self._enough.set()

    def _start_sending(self) -> None:
        self._sender = asyncio.create_task(self._work(), name="log_stream")

    def _let_go(self, stream: Stream) -> None:
        self._take(stream, self._redactors[stream].flush())

    def _stop_waiting(self) -> None:
        for idle in self._idle.values():
            idle.cancel()
        self._idle.clear()
        if self._starting is not None:
            self._starting.cancel()

    async def _work(self) -> None:
        try:
            while chunks := await self._next():
                self._in_flight = chunks
                self._in_flight_bytes = sum(len(chunk.text.encode()) for chunk in chunks)
                self._has_sent = True
                await self._send(chunks)
                self._in_flight = []
                self._in_flight_bytes = 0
                self._room.set()
                await self._collect()
        except Exception as failure:
            self._failure = failure
            raise
        finally:
            self._room.set()

    async def _next(self) -> list[OutputChunk]:
        """Wait for output that must be sent now; none when closed and the rest fits into the result."""
        while not self._chunker.pending and not self._closing:
            self._arrived.clear()
            await self._arrived.wait()
        if self._closing:
            return self._rest.popleft() if len(self._rest) > 1 else []
        return self._chunker.take(MAX_CHUNK_BYTES)

    async def _collect(self) -> None:
        if self._chunker.pending < COLLECT_BYTES and not self._closing:
            self._enough.clear()
            try:
                async with asyncio.timeout(COLLECT_SECONDS):
                    await self._enough.wait()
            except TimeoutError:
                pass
