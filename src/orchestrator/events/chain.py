"""The chain of events: what each event's hash is made of.

    leaf   = SHA-256 over the canonical JSON of actor, agent_id, attempt, data, kind, request_id, task_id and trace_id
    hash   = SHA-256 over the hash of the event before, the number and the time of this one, and its leaf

The number and the time (microseconds since 1970) are signed integers of eight bytes, the highest first. Python makes
the leaf; the database, which gives number and time, makes the hash as it writes the event (`queries.APPEND`).
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring
from uuid import UUID

from common.canonical import canonical_json
from orchestrator.events.model import Event, NewEvent

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Entry:
    """An event's data as text, and its leaf."""

    data: str
    leaf: bytes


def entry_of(event: NewEvent | Event) -> Entry:
    """Return what the chain keeps of an event. Raises TypeError or ValueError for data that is not JSON."""
    data = canonical_json(event.data)
    # The names stand in the canonical order, so this is the canonical text of the whole, without walking it again.
    text = b'{"actor":%b,"agent_id":%b,"attempt":%b,"data":%b,"kind":%b,"request_id":%b,"task_id":%b,"trace_id":%b}' % (
        _text(event.actor),
        _id(event.agent_id),
        b"null" if event.attempt is None else b"%d" % event.attempt,
        data,
        _text(event.kind),
        _id(event.request_id),
        _id(event.task_id),
        _id(event.trace_id),
    )
    return Entry(data.decode(), hashlib.sha256(text).digest())


def link(before: bytes, seq: int, at: datetime, leaf: bytes) -> bytes:
    """Return the hash of an event that follows the hash `before`."""
    micros = (at - EPOCH) // MICROSECOND
    return hashlib.sha256(before + seq.to_bytes(8, signed=True) + micros.to_bytes(8, signed=True) + leaf).digest()


def _text(value: str) -> bytes:
    # As canonical_json does, without its walk: this is done for every event.
    return encode_basestring(value).encode()


def _id(value: UUID | None) -> bytes:
    return b"null" if value is None else b'"%b"' % str(value).encode()
