"""Pieces of output, as they arrive and as they are read."""

import hashlib
from dataclasses import dataclass
from uuid import UUID

from common.messages import OutputChunk, Stream


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A piece that an agent sent for an attempt; it counts only if that attempt is this agent's."""

    task_id: UUID
    attempt: int
    agent_id: UUID
    chunk: OutputChunk

    @property
    def text(self) -> str:
        """What is stored of it: PostgreSQL has no room for NUL in a text."""
        return self.chunk.text.replace("\x00", "\N{REPLACEMENT CHARACTER}")

    def stored(self, *, trace_id: UUID, request_id: UUID) -> "StoredChunk":
        """Return what it is once it is stored."""
        return StoredChunk(
            self.task_id,
            trace_id,
            request_id,
            self.agent_id,
            self.attempt,
            self.chunk.number,
            self.chunk.stream,
            self.chunk.offset,
            hashlib.sha256(self.text.encode()).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A piece that was stored just now, with the ids that an event about it carries, and the SHA-256 of its text."""

    task_id: UUID
    trace_id: UUID
    request_id: UUID
    agent_id: UUID
    attempt: int
    number: int
    stream: Stream
    offset: int
    digest: str


@dataclass(frozen=True, slots=True)
class Page:
    """A part of one stream. Offsets count bytes of UTF-8; `complete` says that nothing will follow `next_offset`.

    `dropped` counts the bytes that the stream held beyond the limit and that were not kept; 0 while that is not known.
    """

    task_id: UUID
    attempt: int
    stream: Stream
    offset: int
    next_offset: int
    text: str
    complete: bool
    dropped: int = 0


def cut(text: str, *, skip: int, take: int) -> tuple[int, str]:
    """Return how many bytes were skipped, and the text of at most `take` bytes after them, in whole characters.

    `skip` inside a character skips the whole character; at least one character is returned if there is one.
    """
    data = text.encode()
    start = min(skip, len(data))
    while start < len(data) and _continues(data[start]):
        start += 1
    end = min(start + take, len(data))
    while end < len(data) and _continues(data[end]):
        end -= 1
    if end <= start < len(data):
        end = start + 1
        while end < len(data) and _continues(data[end]):
            end += 1
    return start, data[start:end].decode()


def _continues(byte: int) -> bool:
    """UTF-8: bytes 10xxxxxx continue a character."""
    return byte & 0b1100_0000 == 0b1000_0000
