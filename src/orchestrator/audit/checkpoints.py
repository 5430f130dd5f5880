"""Checkpoints as text: what is signed, and the line of the file.

A line is one JSON object with seq, hash (hex), at, key_id and signature (base64). The signature is over the canonical
JSON of the first four and `"use": "checkpoint"`, so that it counts for nothing else.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from common.canonical import canonical_json
from common.errors import StartupRefused
from orchestrator.audit.model import Checkpoint, End

HASH_BYTES = 32


class SigningKey(Protocol):
    """Makes signatures in base64."""

    @property
    def key_id(self) -> str: ...

    def sign(self, content: bytes) -> str: ...


class CheckingKey(Protocol):
    """Says whether a signature in base64 is that of its private key."""

    def verifies(self, signature: str, content: bytes) -> bool: ...


class CheckpointsUnusable(StartupRefused):
    """A file of checkpoints cannot be read or believed; the message names the line."""


def make_checkpoint(end: End, *, at: datetime, key: SigningKey) -> Checkpoint:
    """Sign how far the chain has come."""
    return Checkpoint(end.seq, end.hash, at, key.key_id, key.sign(_signed(end.seq, end.hash, at, key.key_id)))


def line_of(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint as a line of the file, with its end."""
    values = {
        "seq": checkpoint.seq,
        "hash": checkpoint.hash.hex(),
        "at": checkpoint.at.isoformat(),
        "key_id": checkpoint.key_id,
        "signature": checkpoint.signature,
    }
    return json.dumps(values).encode() + b"\n"


def parse(line: bytes) -> Checkpoint:
    """Read a line. Raises ValueError for what is no checkpoint."""
    values: Any = json.loads(line)
    try:
        found = Checkpoint(
            seq=values["seq"],
            hash=bytes.fromhex(values["hash"]),
            at=datetime.fromisoformat(values["at"]),
            key_id=values["key_id"],
            signature=values["signature"],
        )
    except (KeyError, TypeError):
        raise ValueError("a field is missing, or of another kind") from None
    texts = isinstance(found.key_id, str) and isinstance(found.signature, str)
    if not texts or type(found.seq) is not int or len(found.hash) != HASH_BYTES:
        raise ValueError("a field is of another kind")
    return found


def check_signature(checkpoint: Checkpoint, keys: Mapping[str, CheckingKey]) -> str | None:
    """Return why a checkpoint is not to be believed; None when one of the keys signed it."""
    key = keys.get(checkpoint.key_id)
    if key is None:
        return f"it is signed with the key {checkpoint.key_id}, which is not among those given"
    content = _signed(checkpoint.seq, checkpoint.hash, checkpoint.at, checkpoint.key_id)
    return None if key.verifies(checkpoint.signature, content) else "its signature is not that of its content"


def _signed(seq: int, hash: bytes, at: datetime, key_id: str) -> bytes:
    content = {"at": at.isoformat(), "hash": hash.hex(), "key_id": key_id, "seq": seq, "use": "checkpoint"}
    return canonical_json(content)
