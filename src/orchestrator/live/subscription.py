"""One reader: what it wants, what it has been shown, and what waits for it while it takes nothing."""

import asyncio
from collections import deque
from dataclasses import dataclass
from uuid import UUID

from orchestrator.events.model import Event
from orchestrator.live.frame import Page, to_json
from orchestrator.live.outlet import Outlet

# What may wait for one reader, in events and in characters of their text. Pages are shared: the same one
# waits for everybody.
BACKLOG = 8_000
BACKLOG_SIZE = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a reader wants: those that match everything given."""

    task_id: UUID | None = None
    trace_id: UUID | None = None
    agent_id: UUID | None = None
    kinds: frozenset[str] = frozenset()

    def matches(self, event: Event) -> bool:
        return (
            (self.task_id is None or event.task_id == self.task_id)
            and (self.trace_id is None or event.trace_id == self.trace_id)
            and (self.agent_id is None or event.agent_id == self.agent_id)
            and (not self.kinds or event.kind in self.kinds)
        )


class Subscription:
    """What one reader has yet to see. `position` is the newest event that it has been shown, or that waits for it."""

    def __init__(self, wanted: Filter, position: int, outlet: Outlet) -> None:
        self.wanted = wanted
        self.position = position
        self.fell_behind = asyncio.Event()
        self._outlet = outlet
        self._waiting: deque[Page] = deque()
        self._count = self._size = 0
        self._is_quiet = True
        outlet.on_ready = self._drain

    def show(self, page: Page) -> None:
        """Show events, or let them wait; the reader falls behind when too many wait already."""
        if page.first <= self.position:
            page = page.after(self.position)
        if not page.frames or self.fell_behind.is_set():
            return
        self.position = page.last
        self._is_quiet = False
        if not self._waiting and self._outlet.is_ready:
            self._outlet.show(page)
        elif self._count + len(page.frames) > BACKLOG or self._size >= BACKLOG_SIZE:
            self.fell_behind.set()
            self._waiting.clear()
        else:
            self._waiting.append(page)
            self._count += len(page.frames)
            self._size += page.size

    def _drain(self) -> None:
        """Show what waits, as long as the reader takes it."""
        while self._waiting and self._outlet.is_ready:
            page = self._waiting.popleft()
            self._count -= len(page.frames)
            self._size -= page.size
            self._outlet.show(page)

    def was_quiet(self) -> bool:
        """Say whether there was nothing to show since this was asked last, and nothing waits."""
        was_quiet, self._is_quiet = self._is_quiet, True
        return was_quiet and not self._waiting

    def beat(self, position: int) -> None:
        """Tell a reader that reads that it has been shown everything up to a position."""
        if self._outlet.is_ready and not self._waiting:
            self._outlet.say(to_json({"type": "heartbeat", "seq": max(self.position, position)}))
