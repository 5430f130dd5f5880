"""What a file of the spool says, line by line: a result, as it is sent, or that results are stored.

A file is appended to, so a crash leaves its last lines torn, absent, or full of zeros. None of these is JSON, which is
how they are recognised.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self
from uuid import UUID

from pydantic import ValidationError

from common.messages import Lease, Stored
from common.protocol import UnreadableMessage, WorkResultEnvelope, decode, encode

_STORED = b'{"action":'


class Key(NamedTuple):
    """Which result: a task has one for each attempt at most."""

    task_id: UUID
    attempt: int


class WrittenResult(NamedTuple):
    """A result as bytes: the same on disk and on the wire, so it is written once."""

    key: Key
    body: bytes

    @classmethod
    def of(cls, envelope: WorkResultEnvelope) -> Self:
        return cls(_key_of(envelope), encode(envelope))

    def envelope(self) -> WorkResultEnvelope:
        """Read it again. Raises `UnreadableMessage`."""
        return _result_in(self.body)


class Unreadable(NamedTuple):
    """A line that says nothing, and why."""

    reason: str


def stored_line(keys: list[Key]) -> bytes:
    """Return the line that says that these results are stored."""
    leases = [Lease.model_construct(task_id=key.task_id, attempt=key.attempt) for key in keys]
    return Stored.model_construct(results=leases).model_dump_json().encode()


def lines_of(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the lines that are not empty, each with the place at which it begins."""
    at = 0
    for line in content.split(b"\n"):
        if line:
            yield at, line
        at += len(line) + 1


def meaning_of(line: bytes) -> WrittenResult | list[Key] | Unreadable:
    """Return the result that a line holds, or the results that it says are stored, or why it is neither."""
    if line.startswith(_STORED):
        try:
            return [Key(lease.task_id, lease.attempt) for lease in Stored.model_validate_json(line).results]
        except ValidationError as failure:
            return Unreadable(f"it names no results: {failure.error_count()} problems")
    try:
        return WrittenResult(_key_of(_result_in(line)), line)
    except UnreadableMessage as failure:
        return Unreadable(str(failure))


def _result_in(body: bytes) -> WorkResultEnvelope:
    envelope = decode(body)
    if not isinstance(envelope, WorkResultEnvelope):
        raise UnreadableMessage(f"it holds a {envelope.type}")
    return envelope


def _key_of(envelope: WorkResultEnvelope) -> Key:
    return Key(envelope.payload.task_id, envelope.payload.attempt)
