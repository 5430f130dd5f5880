"""Read what a task wrote: from the start, in order, each byte once, and live while it runs.

The events say in which order the pieces of both streams came. What the events do not hold at the end is fetched from
the stored output, so that nothing is missing whatever way it arrived.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import NamedTuple

from chiffon.client import AnyId, Client
from common.messages import Stream
from common.rest.events import Event

# How long to wait, after a task has ended, for output that is still on its way.
LATEST_OUTPUT = timedelta(seconds=5)


class Piece(NamedTuple):
    """Some text, or, as the last of its stream and without text, how many bytes were dropped after it."""

    attempt: int
    stream: Stream
    text: str
    dropped: int = 0


class Transcript:
    """Puts the pieces of one attempt in order by their offsets; a new attempt starts a new transcript."""

    def __init__(self) -> None:
        self.attempt = 0
        self._ends: dict[Stream, int] = {}
        self._early: dict[tuple[Stream, int], str] = {}
        self._sizes: dict[Stream, int] | None = None

    @property
    def is_complete(self) -> bool:
        """True when the task has ended and everything is here that its end announced."""
        return self._sizes is not None and all(self.position(stream) >= size for stream, size in self._sizes.items())

    def position(self, stream: Stream) -> int:
        """Return how many bytes of a stream have been handed out."""
        return self._ends.get(stream, 0)

    def begin(self, attempt: int) -> None:
        """Go on with an attempt; nothing happens when it is the current one or an older one."""
        if attempt > self.attempt:
            self.attempt = attempt
            self._ends.clear()
            self._early.clear()

    def take(self, stream: Stream, offset: int, text: str) -> list[Piece]:
        """Add a piece and return those that are next in their stream; one that was seen before is dropped."""
        if offset < self.position(stream):
            return []
        self._early[stream, offset] = text
        ready = []
        while (found := self._early.pop((stream, self.position(stream)), None)) is not None:
            ready.append(Piece(self.attempt, stream, found))
            self._ends[stream] = self.position(stream) + len(found.encode())
        return ready

    def take_event(self, event: Event) -> list[Piece]:
        """Add what an event tells; output of older attempts is dropped.

        Output and result take different ways to the ledger, so the last pieces may come after the end. How much there
        is stands in the event that ends the task.
        """
        if event.ends_a_task:
            sizes = event.data.get("output_bytes")
            self._sizes = (
                {Stream(name): int(str(size)) for name, size in sizes.items()} if isinstance(sizes, dict) else {}
            )
        attempt = event.attempt or self.attempt
        self.begin(attempt)
        if event.kind != "task.output" or attempt != self.attempt:
            return []
        data = event.data
        return self.take(Stream(str(data["stream"])), int(str(data["offset"])), str(data["text"]))


async def read_output(
    client: Client,
    task_id: AnyId,
    *,
    follow: bool = False,
    stream: Stream | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> AsyncGenerator[Piece, None]:
    """Yield the pieces that a task wrote until now or, with `follow`, until it ends; `stream` picks one of the two.

    `progress` is called with each report that came between them, and with an empty text when an attempt begins.
    Raises `ApiError` (404) when there is no such task.
    """
    wanted = list(Stream) if stream is None else [stream]
    transcript = Transcript()
    await client.status(task_id)
    events = watch_to_the_end(client, task_id) if follow else _so_far(client, task_id)
    async with aclosing(events):
        async for event in events:
            if event.progress is not None:
                progress(event.progress)
            for piece in transcript.take_event(event):
                if piece.stream in wanted:
                    yield piece
    for name in wanted:
        async with aclosing(read_rest(client, task_id, name, transcript)) as rest:
            async for piece in rest:
                yield piece


async def _so_far(client: Client, task_id: AnyId) -> AsyncGenerator[Event, None]:
    after = 0
    while (page := await client.events(task_id, after=after)).items:
        for event in page.items:
            yield event
        after = page.next_after


async def watch_to_the_end(client: Client, task_id: AnyId) -> AsyncGenerator[Event, None]:
    """Yield every event of a task from its beginning to its end, and the output that is recorded just after that."""
    transcript = Transcript()
    has_ended = False
    async with aclosing(client.watch(task_id=task_id, after=0)) as events:
        while not transcript.is_complete:
            try:
                async with asyncio.timeout(LATEST_OUTPUT.total_seconds() if has_ended else None):
                    event = await anext(events)
            except TimeoutError:
                return
            transcript.take_event(event)
            has_ended = has_ended or event.ends_a_task
            yield event


async def read_rest(
    client: Client, task_id: AnyId, stream: Stream, transcript: Transcript
) -> AsyncGenerator[Piece, None]:
    """Yield what is stored of a stream behind what the transcript has handed out."""
    if transcript.attempt == 0:
        return
    offset = transcript.position(stream)
    while True:
        page = await client.output(task_id, stream=stream, offset=offset, attempt=transcript.attempt)
        if page.text:
            yield Piece(page.attempt, stream, page.text)
        if page.complete or page.next_offset == offset:
            if page.dropped:
                yield Piece(page.attempt, stream, "", page.dropped)
            return
        offset = page.next_offset
