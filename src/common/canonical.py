"""One text for one JSON value, by RFC 8785 (JSON Canonicalization Scheme), so that every side computes the same digest.

A number is the IEEE 754 double that it denotes: 100.0, 1e2 and 100 have one text, also after they went through
PostgreSQL's jsonb. Integers that a double may not hold exactly have none, because two of them would share a digest.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from types import NoneType
from typing import Any

DIGEST_BYTES = 32
# Beyond it a double stands for several integers.
MAX_INTEGER = 2**53 - 1

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_PLAIN = frozenset({str, bool, NoneType})
# Below these characters code points and UTF-16 code units sort the same.
_SURROGATES = "\ud800"


def canonical_json(value: Any) -> bytes:
    """Return the canonical text (UTF-8) of a JSON value.

    Raises TypeError for what JSON has no word for, ValueError for NaN, Infinity, lone surrogates and integers beyond
    ±`MAX_INTEGER`.
    """
    return (_encode(value) if _is_plain(value) else _text(value)).encode()


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


def _is_plain(value: Any) -> bool:
    """Return whether the encoder of the standard library, which is written in C, gives the canonical text.

    It sorts names by code points, and writes some floats in Python's way.
    """
    kind = type(value)
    if kind is dict:
        return _are_in_one_order(value) and _are_plain(value.values())
    if kind is list or kind is tuple:
        return _are_plain(value)
    if kind is int:
        return bool(-MAX_INTEGER <= value <= MAX_INTEGER)
    if kind is float:
        return bool(1e-4 <= abs(value) < MAX_INTEGER and not value.is_integer())
    return kind in _PLAIN


def _are_plain(values: Iterable[Any]) -> bool:
    return _PLAIN.issuperset(map(type, values)) or all(map(_is_plain, values))


def _are_in_one_order(names: Iterable[str]) -> bool:
    """Return whether code points and UTF-16 code units sort the same; raises TypeError for a name that is no text."""
    joined = "".join(names)
    return joined.isascii() or max(joined) < _SURROGATES


def _text(value: Any) -> str:
    """Return the canonical text of any value, part by part."""
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict | Mapping):  # the first is found at once
        names = sorted(value) if _are_in_one_order(value) else sorted(value, key=_code_units)
        return "{" + ",".join([f"{encode_basestring(name)}:{_text(value[name])}" for name in names]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise ValueError(f"an integer beyond ±{MAX_INTEGER} has no canonical text")
        return int.__repr__(value)
    raise TypeError(f"JSON has no {type(value).__name__}")


def _code_units(name: str) -> bytes:
    return name.encode("utf-16-be")


def _number(value: float) -> str:
    """Return a number as ECMAScript writes it; Python finds the same digits, and places the point differently."""
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("JSON has no NaN and no Infinity")
    if value == 0:
        return "0"  # also for -0.0
    mantissa, exponent, power = repr(float(value)).partition("e")
    if not exponent:
        return mantissa.removesuffix(".0")
    sign = "-" if value < 0 else ""
    digits = mantissa.removeprefix("-").replace(".", "")
    before_point = int(power) + 1
    if len(digits) <= before_point <= 21:
        return sign + digits.ljust(before_point, "0")
    if -6 < before_point <= 0:
        return f"{sign}0.{'0' * -before_point}{digits}"
    return f"{mantissa}e{int(power):+d}"
