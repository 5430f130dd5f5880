"""Results that travel as one message: what they say, and how they are taken apart when one cannot be dealt with.

Each is then a message of its own, as if it had been sent alone, so that it shares its fate with no other.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from common.broker.base import Delivery
from common.protocol import (
    MOST_REPLY_BYTES,
    MOST_RESULTS,
    Envelope,
    UnreadableMessage,
    WorkResultEnvelope,
    WorkResultsEnvelope,
    decode,
    encode,
)

KIND = "work_results"
SINGLE = "work_result"


class Taken(NamedTuple):
    """A message that was read."""

    delivery: Delivery
    envelope: Envelope

    @property
    def payloads(self) -> Sequence[BaseModel]:
        """What its handler is to deal with."""
        if isinstance(self.envelope, WorkResultsEnvelope):
            results: list[BaseModel] = [result.payload for result in self.envelope.payload.results]
            # What asks for more work is dealt with beside the results.
            return [*results, self.envelope.payload] if self.envelope.payload.credit is not None else results
        return [self.envelope.payload]


class Damaged(NamedTuple):
    """Results that travelled together, of which some can be read: those, and the bytes of each."""

    envelope: WorkResultsEnvelope
    results: Sequence[bytes]


def apart(envelope: WorkResultsEnvelope) -> list[bytes]:
    """Return each result as a message of its own."""
    return [encode(result) for result in envelope.payload.results]


def read_damaged(body: bytes) -> Damaged | None:
    """Read a message that cannot be read as a whole; None when it holds no results, or none that can be read."""
    if len(body) > MOST_REPLY_BYTES:
        return None
    try:
        content = json.loads(body)
        bodies = _results_in(content)
        readable = [found for found in bodies if _is_result(found)]
        content["payload"]["results"] = [json.loads(found) for found in readable]
        envelope = decode(json.dumps(content).encode())
    except (ValueError, RecursionError):
        return None
    return Damaged(envelope, bodies) if isinstance(envelope, WorkResultsEnvelope) else None


def in_turn(taken: Iterable[Taken], *, most: int) -> Iterator[list[Taken]]:
    """Yield messages in their order, so many at a time that they hold at most so many payloads, or one message."""
    turn: list[Taken] = []
    size = 0
    for one in taken:
        count = len(one.payloads)
        if turn and size + count > most:
            yield turn
            turn, size = [], 0
        turn.append(one)
        size += count
    if turn:
        yield turn


def _results_in(content: Any) -> list[bytes]:
    """Return what stands where results belong. Raises `ValueError` when not all claim to be results of one agent."""
    match content:
        case {"type": str(kind), "payload": {"agent_id": str(agent), "results": list(items)}} if kind == KIND:
            if len(items) <= MOST_RESULTS and all(_is_claimed_by(agent, item) for item in items):
                return [json.dumps(item).encode() for item in items]
    raise ValueError("it holds no results of one agent")


def _is_claimed_by(agent: str, item: object) -> bool:
    match item:
        case {"type": kind, "from_agent": sender, "payload": {"agent_id": owner}}:
            return (kind, sender, owner) == (SINGLE, agent, agent)
    return False


def _is_result(body: bytes) -> bool:
    try:
        return isinstance(decode(body), WorkResultEnvelope)
    except UnreadableMessage:
        return False
