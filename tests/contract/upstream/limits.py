"""Limits of the queue API that upstream's contract does not name: the table of
docs/reference/queue-api.md, told once more so that a test can say beforehand what the answer must be.
"""

import math
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from typing import Any

KNOWN: Mapping[str, Collection[str]] = {
    "listQueueJobs": {"status", "type", "limit", "cursor"},
    "getQueueJob": (),
    "createQueueJob": {"type", "priority", "payload", "affinityKey", "maxAttempts", "requestId"},
    "claimQueueJob": {"workerId", "leaseSeconds", "allowedTypes", "workerCapabilities", "claimId", "waitSeconds"},
    "heartbeatQueueJob": {"workerId", "leaseSeconds", "attempt"},
    "completeQueueJob": {"workerId", "resultSummary", "attempt"},
    "failQueueJob": {"workerId", "errorMessage", "retryable", "attempt"},
}
LONGEST = {
    "type": 200, "affinityKey": 200, "workerId": 200, "errorMessage": 4096, "resultSummary": 16 * 1024,
}  # fmt: skip
HIGHEST = {"maxAttempts": 100, "leaseSeconds": 3600, "priority": 2**53 - 1}
MOST_TYPES = 100
DEEPEST = 64
LARGEST_INTEGER = 2**53 - 1
# People read these in a line.
LINES = ("type", "affinityKey", "workerId", "allowedTypes", "workerCapabilities")
BIDIRECTIONAL = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
MARKS = "\u061c\u200e\u200f"


def is_beyond(operation: str, body: Mapping[str, Any]) -> bool:
    """Say whether a body that the contract takes is refused by a limit of the queue API."""
    return (
        not body.keys() <= set(KNOWN[operation])
        or any(isinstance(body.get(name), str) and len(body[name]) > most for name, most in LONGEST.items())
        or any(body.get(name, 0) > most for name, most in HIGHEST.items())
        or body.get("priority", 0) < -LARGEST_INTEGER
        or len(body.get("allowedTypes", ())) > MOST_TYPES
        or any(len(name) > LONGEST["type"] for name in body.get("allowedTypes", ()))
        or any(_is_no_line(value) for name in LINES for value, _ in _values(body.get(name), 0))
        or any(_is_not_kept(value, depth) for value, depth in _values(body, 0))
    )


def _values(value: Any, depth: int) -> Iterator[tuple[Any, int]]:
    yield value, depth
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield name, depth
            yield from _values(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner, depth + 1)


def _is_no_line(value: Any) -> bool:
    """Say whether a text holds what a terminal obeys, or what reorders the line in which it stands."""
    return isinstance(value, str) and any(
        unicodedata.category(one) in {"Cc", "Zl", "Zp"}
        or unicodedata.bidirectional(one) in BIDIRECTIONAL
        or one in MARKS
        for one in value
    )


def _is_not_kept(value: Any, depth: int) -> bool:
    """Say whether PostgreSQL keeps no such text, JSON has no such number, or it is too large or lies too deep."""
    if isinstance(value, str):
        return "\x00" in value or any(0xD800 <= ord(one) <= 0xDFFF for one in value)
    if isinstance(value, float) and not math.isfinite(value):
        return True
    return depth > DEEPEST or (isinstance(value, int | float) and abs(value) > LARGEST_INTEGER)
