"""Events as they are sent: each made once, for all who read it."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from uuid import UUID

from orchestrator.events.model import Event
from orchestrator.http.websocket import framed

# What is written to a reader at once, in characters; a single event may be larger.
PAGE_SIZE = 64 * 1024


class Frame:
    """One event. It is encoded when somebody is to see it, and then once."""

    def __init__(self, event: Event) -> None:
        self.event = event

    @property
    def seq(self) -> int:
        return self.event.seq

    @cached_property
    def text(self) -> str:
        return encode(self.event)

    @property
    def size(self) -> int:
        return len(self.text)

    @cached_property
    def wire(self) -> bytes:
        return framed(self.text.encode())


class Page:
    """Some events in their order, for all who want just these. On the wire they are one piece of many frames.

    `first` and `last` are the numbers of the events at its ends.
    """

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames
        self.first, self.last = (frames[0].seq, frames[-1].seq) if frames else (0, 0)

    @cached_property
    def size(self) -> int:
        return sum(frame.size for frame in self.frames)

    @cached_property
    def wire(self) -> bytes:
        return b"".join(frame.wire for frame in self.frames)

    def after(self, seq: int) -> "Page":
        """Return what lies behind an event."""
        return Page([frame for frame in self.frames if frame.seq > seq])


def pages(frames: Sequence[Frame]) -> Iterator[Page]:
    """Cut events into pages that can be written at once."""
    page: list[Frame] = []
    size = 0
    for frame in frames:
        if page and size + frame.size > PAGE_SIZE:
            yield Page(page)
            page, size = [], 0
        page.append(frame)
        size += frame.size
    if page:
        yield Page(page)


def encode(event: Event) -> str:
    """Return the frame that tells of an event, as JSON."""
    return to_json({"type": "event", "event": as_json(event)})


def to_json(frame: dict[str, object]) -> str:
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


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
