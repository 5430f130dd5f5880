"""Fan events out to everyone who watches, without ever waiting for a slow one."""

import asyncio
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from orchestrator.events.model import Event

BACKLOG = 2_000
RECENT = 5_000


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


@dataclass(frozen=True, slots=True)
class Frame:
    """An event and the text that is sent of it, made once for all readers."""

    event: Event
    text: str


class Subscription:
    """What one reader has yet to see. `position` is the newest event that it has been shown or did not want."""

    def __init__(self, wanted: Filter, position: int) -> None:
        self.wanted = wanted
        self.position = position
        self.fell_behind = asyncio.Event()
        self._waiting: deque[Frame] = deque()
        self._news = asyncio.Event()

    def offer(self, frame: Frame) -> None:
        """Let an event wait for the reader, who falls behind when too many wait already."""
        if len(self._waiting) >= BACKLOG:
            self.fell_behind.set()
            self._waiting.clear()
        elif not self.fell_behind.is_set() and frame.event.seq > self.position:
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
            self.position = taken[-1].event.seq
        return taken


class Hub:
    """Knows who watches, and the newest events. `position` is the newest event that was fanned out."""

    def __init__(self) -> None:
        self.position = 0
        self._subscriptions: set[Subscription] = set()
        self._recent: deque[Frame] = deque(maxlen=RECENT)

    def start_at(self, position: int) -> None:
        """Begin to follow after this event."""
        self.position = position

    def attach(self, wanted: Filter, *, after: int) -> Subscription | None:
        """Begin to watch after an event; None when that lies too far back, and the ledger must be read first."""
        oldest = self._recent[0].event.seq if self._recent else self.position + 1
        if after + 1 < oldest and after < self.position:
            return None
        subscription = Subscription(wanted, after)
        for frame in self._recent:
            if frame.event.seq > after and wanted.matches(frame.event):
                subscription.offer(frame)
        subscription.skip_to(self.position)
        self._subscriptions.add(subscription)
        return subscription

    def detach(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def publish(self, events: Iterable[Event]) -> None:
        """Show events to all who want them."""
        for event in events:
            frame = Frame(event, encode(event))
            self._recent.append(frame)
            self.position = event.seq
            for subscription in self._subscriptions:
                if subscription.wanted.matches(event):
                    subscription.offer(frame)
        for subscription in self._subscriptions:
            subscription.skip_to(self.position)


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
