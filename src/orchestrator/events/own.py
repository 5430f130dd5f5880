"""Events that this orchestrator has just written itself: those who follow need not read them from the ledger again.

A short memory between the statements that write most events and the feed. What is not in it is read, so nothing depends
on it: the events of other orchestrators and of other statements, and what was dropped because nobody took it in time.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from orchestrator.events.model import Event, NewEvent
from orchestrator.events.queries import Written

# As many events wait to be taken; those that were written before them are left to the ledger.
MOST = 4_000


class OwnEvents:
    """Belongs to one event loop. `wanted` says whether anybody follows, `news` is called when something is new."""

    def __init__(self) -> None:
        self.wanted: Callable[[], bool] = lambda: False
        self.news: Callable[[], None] = lambda: None
        self._pages: deque[list[Event]] = deque()
        self._count = 0
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
        self._pages.append(list(_numbered(told, written, texts or {})))
        self._count += len(self._pages[-1])
        while self._count > MOST and len(self._pages) > 1:
            self._count -= len(self._pages.popleft())
        self.news()

    def take(self, *, after: int) -> list[Event]:
        """Return the events that follow this one without a gap; what lies before them is forgotten."""
        taken: list[Event] = []
        while self._pages and self._pages[0][0].seq <= after + 1:
            page = self._pages.popleft()
            self._count -= len(page)
            if page[0].seq == after + 1:
                taken += page
                after = page[-1].seq
        return taken

    async def one_ended(self, *, within: float) -> None:
        """Return when a statement ends that is under way, or after so many seconds; at once when there is none."""
        if self._under_way:
            self._ended.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._ended.wait()


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
