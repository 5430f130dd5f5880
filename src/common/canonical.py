"""One text for one JSON value, so that both sides compute the same digest of the same work.

The rules are those of RFC 8785 (JSON Canonicalization Scheme) except for numbers, which keep their exact decimal value:
a value that went through PostgreSQL's jsonb, or through another JSON library, has the same canonical text as before.
"""

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

DIGEST_BYTES = 32

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical_json(value: Any) -> bytes:
    """Return the canonical text (UTF-8) of a JSON value.

    Raises TypeError for what JSON has no word for, ValueError for NaN, Infinity and lone surrogates.
    """
    return _encode(_plain(value)).encode()


def work_digest(
    *,
    work_type: str,
    parameters: Mapping[str, Any],
    hints: Mapping[str, Any],
    target: str,
    policy_version: str,
) -> bytes:
    """Return SHA-256 (32 bytes) over exactly what is to run, where, and by which policy.

    People approve this digest, the orchestrator signs it, and the agent computes it again over what it is about to run.
    `target` is the type of agent.
    """
    content = {
        "hints": hints,
        "parameters": parameters,
        "policy_version": policy_version,
        "target": target,
        "work_type": work_type,
    }
    return hashlib.sha256(canonical_json(content)).digest()


def _plain(value: Any) -> Any:
    # Nearly everything is of one of these types exactly, and that is told much sooner than what is like them.
    kind = type(value)
    if kind is str or kind is int:
        return value
    if kind is dict and all(type(name) is str for name in value):
        return {name: _plain(inner) for name, inner in value.items()}
    if value is None or isinstance(value, str | int):  # True and False are ints
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict | Mapping):  # the first is found at once
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"a JSON object has texts as names, not {type(name).__name__}")
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    raise TypeError(f"JSON has no {type(value).__name__}")


def _number(value: float) -> float | int:
    """Write 100.0, 1e2 and 100 alike: jsonb does not keep the difference."""
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("JSON has no NaN and no Infinity")
    exact = Decimal(repr(value))
    return int(exact) if exact == exact.to_integral_value() else value
