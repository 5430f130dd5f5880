"""Read JSON so that a text has one meaning, or is refused.

A name that an object has twice is refused because readers differ in which of its values they take: what people approve
must be what runs. The text is UTF-8, with or without a byte order mark.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from common.json_rules import MAX_DEPTH

LONGEST_SHOWN = 100


class NotJson(ValueError):
    """The text is not JSON, or not with one meaning only. `path` leads to what is wrong, as far as that is known."""

    def __init__(self, problem: str, path: Sequence[str | int] = ()) -> None:
        super().__init__(f"{'.'.join(map(str, path))}: {problem}" if path else problem)
        self.path = tuple(path)
        self.problem = problem


class NameTwice(NotJson):
    """An object has a name twice."""


class _HasOne(Exception):
    """There is an object with a name twice."""


class _Pairs(list[tuple[str, Any]]):
    """An object with its names as they were written."""


def read_json(text: bytes | str) -> Any:
    """Return the value of a JSON text; raises `NotJson`."""
    decoded = _decoded(text) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    try:
        return _READER.decode(decoded)
    except _HasOne:
        path, name = _find_repeated(_PAIRS_READER.decode(decoded))
        raise NameTwice(f"has the name {name[:LONGEST_SHOWN]!r} twice", path) from None
    except json.JSONDecodeError as error:
        raise NotJson(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise NotJson(f"must not be nested deeper than {MAX_DEPTH} levels") from None
    except NotJson:
        raise
    except ValueError:  # Python reads no integer of more than some thousand digits
        raise NotJson("must not contain integers of so many digits") from None


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = text[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise NotJson(f"is not UTF-8: the byte {text[error.start]:#04x} at line {line}, byte {column}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _HasOne
    return value


def _no_number(name: str) -> NoReturn:
    raise NotJson(f"must not contain {name}: JSON has no such number")


_READER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number)
_PAIRS_READER = json.JSONDecoder(object_pairs_hook=_Pairs)


def _find_repeated(value: Any) -> tuple[Sequence[str | int], str]:
    """Return where an object is that has a name twice, and the name.

    Each name is looked at once: anybody can send a text of millions of them.
    """
    path: list[str | int] = []
    levels = [_parts(value)]
    while True:
        if isinstance(value, _Pairs) and (name := _repeated(value)) is not None:
            return path, name
        while (part := next(levels[-1], None)) is None:
            levels.pop()
            path.pop()
        step, value = part
        path.append(step)
        levels.append(_parts(value))


def _parts(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, _Pairs):
        return iter(value)
    return enumerate(value) if isinstance(value, list) else iter(())


def _repeated(pairs: _Pairs) -> str | None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    return None
