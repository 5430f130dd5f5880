"""Events that this orchestrator has just written itself: those who follow need not read them from the ledger again.

A short memory between the statements that write most events and the feed. What is not in it is read, so nothing depends
on it: the events of other orchestrators and of other statements, and what was dropped because nobody took it in time.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from orchestrator.events.model import Event, NewEvent
from orchestrator.events.queries import Written

# As much waits to be taken, in characters; what was written before is left to the ledger.
MOST = 16 * 1024 * 1024
# About the size of an event without the output that it tells of.
EVENT = 1024


class OwnEvents:
    """Belongs to one event loop. `wanted` says whether anybody follows; `reached` is told of the newest event."""

    def __init__(self) -> None:
        self.wanted: Callable[[], bool] = lambda: False
        self.reached: Callable[[int], None] = lambda newest: None
        self._pages: deque[_Page] = deque()
        self._size = 0
        self._under_way = 0
        self._ended = asyncio.Event()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say that a statement is under way which may write events; `add` them inside the block."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._ended.set()

    def add(self, told: Sequence[NewEvent], written: Written | None, texts: Mapping[int, str] | None = None) -> None:
        """Take in what a statement has written of `told`. `texts` are outputs that events tell of, by the positions."""
        if written is None or not self.wanted():
            return
        page = _page(told, written, texts or {})
        self._pages.append(page)
        self._size += page.size
        while self._size > MOST and len(self._pages) > 1:
            self._drop_oldest()
        self.reached(page.events[-1].seq)

    def take(self, *, after: int) -> list[Event]:
        """Return the events that follow this one without a gap; what lies before them is forgotten."""
        taken: list[Event] = []
        while self._pages and self._pages[0].events[0].seq <= after + 1:
            events = self._drop_oldest().events
            if events[0].seq == after + 1:
                taken += events
                after = events[-1].seq
        return taken

    def forget(self) -> None:
        """Keep nothing: nobody follows any more."""
        self._pages.clear()
        self._size = 0

    async def one_ended(self, *, within: float) -> None:
        """Return when a statement ends that is under way, or after so many seconds; at once when there is none."""
        if self._under_way:
            self._ended.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._ended.wait()

    def _drop_oldest(self) -> "_Page":
        page = self._pages.popleft()
        self._size -= page.size
        return page


class _Page(NamedTuple):
    """What one statement wrote, and about how much memory that takes."""

    events: list[Event]
    size: int


def _page(told: Sequence[NewEvent], written: Written, texts: Mapping[int, str]) -> _Page:
    events = list(_numbered(told, written, texts))
    return _Page(events, EVENT * len(events) + sum(map(len, texts.values())))


def _numbered(told: Sequence[NewEvent], written: Written, texts: Mapping[int, str]) -> Iterator[Event]:
    for seq, position in enumerate(written.positions, written.before + 1):
        new = told[position - 1]
        data = {**new.data, "text": texts[position]} if position in texts else new.data
        yield Event(
            seq,
            written.at,
            new.kind,
            new.task_id,
            new.trace_id,
            new.request_id,
            new.agent_id,
            new.attempt,
            new.actor,
            data,
        )
