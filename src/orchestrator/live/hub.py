"""Fan events out to everyone who watches, without ever waiting for a slow one."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestrator.events.model import Event
from orchestrator.live.audience import Audience
from orchestrator.live.frame import Frame, pages
from orchestrator.live.outlet import Outlet
from orchestrator.live.subscription import Filter, Subscription

# What is kept for readers that come back soon, in events and in characters of their text. Less than may wait for one
# reader, or one that attaches to everything recent would have fallen behind before it began.
RECENT = 4_000
RECENT_SIZE = 16 * 1024 * 1024
# How many readers are served before others have a turn.
AT_ONCE = 100


class Hub:
    """Knows who watches, and the newest events. `position` is the newest event that anybody was shown."""

    def __init__(self) -> None:
        self.position = 0
        # The newest event that was shown to all who want it.
        self.shown = 0
        self._readers = 0
        self._audience = Audience()
        self._recent: deque[Frame] = deque()
        self._recent_size = 0

    @property
    def has_readers(self) -> bool:
        return self._readers > 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Have the newest events kept while the block runs, for a reader that is shown the past first."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    def start_at(self, position: int) -> None:
        """Begin to follow after this event, or go on after it: what lies before is left to the ledger."""
        self.position = self.shown = position
        self._recent.clear()
        self._recent_size = 0

    def attach(self, wanted: Filter, outlet: Outlet, *, after: int) -> Subscription | None:
        """Begin to watch after an event; None when that lies too far back, and the ledger must be read first."""
        oldest = self._recent[0].seq if self._recent else self.position + 1
        if after + 1 < oldest:
            return None
        subscription = Subscription(wanted, after, outlet)
        for page in pages([frame for frame in self._recent if frame.seq > after and wanted.matches(frame.event)]):
            subscription.show(page)
        subscription.position = max(subscription.position, self.position)
        self._audience.add(subscription)
        return subscription

    def detach(self, subscription: Subscription) -> None:
        self._audience.discard(subscription)

    async def publish(self, events: Sequence[Event]) -> None:
        """Show events to all who want them. Others have turns meanwhile; what happens then is the next page."""
        frames = [Frame(event) for event in events]
        for frame in frames:
            self._remember(frame)
            self.position = frame.seq
        served = 0
        for page, readers in self._audience.shares(frames):
            for reader in readers:
                reader.show(page)
                served += 1
                if served % AT_ONCE == 0:
                    await asyncio.sleep(0)
        self.shown = self.position

    def _remember(self, frame: Frame) -> None:
        self._recent.append(frame)
        self._recent_size += frame.size
        while len(self._recent) > RECENT or self._recent_size > RECENT_SIZE:
            self._recent_size -= self._recent.popleft().size
