"""Fan events out to everyone who watches, without ever waiting for a slow one."""

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

from orchestrator.events.model import Event

# What may wait for one reader, and what is kept for readers that come back soon, in events and in characters of their
# text. Frames are shared: the same text waits for everybody. The backlog is the larger one, or a reader that attaches
# to everything recent would have fallen behind before it began.
BACKLOG = 8_000
BACKLOG_SIZE = 32 * 1024 * 1024
RECENT = 4_000
RECENT_SIZE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """An event as it is sent, made once for all readers, and what filters look at."""

    seq: int
    kind: str
    task_id: UUID | None
    trace_id: UUID | None
    agent_id: UUID | None
    text: str

    @classmethod
    def of(cls, event: Event) -> "Frame":
        return cls(event.seq, event.kind, event.task_id, event.trace_id, event.agent_id, encode(event))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a reader wants: those that match everything given."""

    task_id: UUID | None = None
    trace_id: UUID | None = None
    agent_id: UUID | None = None
    kinds: frozenset[str] = frozenset()

    def matches(self, frame: Frame) -> bool:
        return (
            (self.task_id is None or frame.task_id == self.task_id)
            and (self.trace_id is None or frame.trace_id == self.trace_id)
            and (self.agent_id is None or frame.agent_id == self.agent_id)
            and (not self.kinds or frame.kind in self.kinds)
        )


class Frames:
    """A queue of frames that knows the size of its texts."""

    def __init__(self) -> None:
        self.size = 0
        self._frames: deque[Frame] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    def append(self, frame: Frame) -> None:
        self._frames.append(frame)
        self.size += len(frame.text)

    def popleft(self) -> Frame:
        frame = self._frames.popleft()
        self.size -= len(frame.text)
        return frame

    def clear(self) -> None:
        self._frames.clear()
        self.size = 0

    def oldest(self) -> int | None:
        """Return the number of the oldest event; None when there is none."""
        return self._frames[0].seq if self._frames else None


class Subscription:
    """What one reader has yet to see. `position` is the newest event that it has been shown or did not want."""

    def __init__(self, wanted: Filter, position: int) -> None:
        self.wanted = wanted
        self.position = position
        self.fell_behind = asyncio.Event()
        self._waiting = Frames()
        self._news = asyncio.Event()

    def offer(self, frame: Frame) -> None:
        """Let an event wait for the reader, who falls behind when too many wait already."""
        if self.fell_behind.is_set() or frame.seq <= self.position:
            return
        if len(self._waiting) >= BACKLOG or self._waiting.size >= BACKLOG_SIZE:
            self.fell_behind.set()
            self._waiting.clear()
            return
        self._waiting.append(frame)
        self._news.set()

    def skip_to(self, position: int) -> None:
        """Nothing that the reader wants lies before this position, unless it still waits here."""
        if not self._waiting:
            self.position = max(self.position, position)

    async def next(self, limit: int) -> list[Frame]:
        """Wait for events and return those that wait, at most `limit`."""
        await self._news.wait()
        taken = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        if not self._waiting:
            self._news.clear()
        if taken:
            self.position = taken[-1].seq
        return taken


class Hub:
    """Knows who watches, and the newest events. `position` is the newest event that was fanned out."""

    def __init__(self) -> None:
        self.position = 0
        self._subscriptions: set[Subscription] = set()
        self._recent = Frames()

    def start_at(self, position: int) -> None:
        """Begin to follow after this event."""
        self.position = position

    def attach(self, wanted: Filter, *, after: int) -> Subscription | None:
        """Begin to watch after an event; None when that lies too far back, and the ledger must be read first."""
        oldest = self._recent.oldest()
        if after + 1 < (self.position + 1 if oldest is None else oldest):
            return None
        subscription = Subscription(wanted, after)
        for frame in self._recent:
            if wanted.matches(frame):
                subscription.offer(frame)
        subscription.skip_to(self.position)
        self._subscriptions.add(subscription)
        return subscription

    def detach(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def publish(self, events: Iterable[Event]) -> None:
        """Show events to all who want them."""
        for event in events:
            frame = Frame.of(event)
            self._remember(frame)
            self.position = frame.seq
            for subscription in self._subscriptions:
                if subscription.wanted.matches(frame):
                    subscription.offer(frame)
        for subscription in self._subscriptions:
            subscription.skip_to(self.position)

    def _remember(self, frame: Frame) -> None:
        self._recent.append(frame)
        while len(self._recent) > RECENT or self._recent.size > RECENT_SIZE:
            self._recent.popleft()


def encode(event: Event) -> str:
    """Return the frame that tells of an event, as JSON."""
    return json.dumps({"type": "event", "event": as_json(event)}, ensure_ascii=False, separators=(",", ":"))


def as_json(event: Event) -> dict[str, object]:
    """Return an event in the shape that callers see."""
    return {
        "seq": event.seq,
        "at": event.at.isoformat(),
        "kind": event.kind,
        "task_id": _text(event.task_id),
        "trace_id": _text(event.trace_id),
        "request_id": _text(event.request_id),
        "agent_id": _text(event.agent_id),
        "attempt": event.attempt,
        "actor": event.actor,
        "data": dict(event.data),
    }


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
