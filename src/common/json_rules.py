"""What JSON may contain here, beyond its grammar, and how large it is.

PostgreSQL's jsonb refuses NUL, UTF-8 refuses lone surrogates, JSON has no NaN, a value nested too deep breaks the
reader that comes after, and many programs read a number beyond 2^53 as another one (RFC 7493); so all of these are
refused where they come in. Sizes are those of the canonical text, in which the ledger and every answer hold a value.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, JsonValue, Strict
from pydantic_core import PydanticCustomError, to_json

from common.canonical import MAX_INTEGER, canonical_json

MAX_DEPTH = 64
LONGEST_STEP = 100

# Controls, separators of lines, and the characters that reorder what stands beside them.
_NOT_ON_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# No value grows more than this from the text that pydantic writes to the one that the ledger holds.
_MOST_GROWTH = 64
# JSON and PostgreSQL agree on the digits of larger numbers; PostgreSQL writes smaller ones without an exponent.
_SMALLEST_WRITTEN_OUT = 1e-6


def check_text(text: str) -> str:
    """Return the text, or raise ValueError if it cannot be stored."""
    if "\x00" in text:
        raise ValueError("must not contain the NUL character (U+0000)")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode: it contains a lone surrogate") from None
    return text


def check_line(text: str) -> str:
    """Return the text, or raise ValueError if it is not one line, or could command a terminal or reorder a line."""
    if text.isascii() and text.isprintable():
        return text
    found = _NOT_ON_A_LINE.search(text)
    if found is not None:
        raise ValueError(f"must not contain control or bidirectional characters: it contains U+{ord(found[0]):04X}")
    return check_text(text)


def check_json(value: Any) -> Any:
    """Return the value, or raise ValueError naming the first thing in it that cannot be stored or sent on."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if type(item) is str and item.isascii() and item.isprintable():
                continue  # nearly every text
            try:
                _check_alone(item)
            except ValueError as problem:
                raise ValueError(f"{_place_of(item, value)}{problem}") from None
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return value
        level = below
    raise ValueError(f"must not be nested deeper than {MAX_DEPTH} levels")


def _check_alone(item: Any) -> None:
    if isinstance(item, dict):
        for name in item:
            if not isinstance(name, str):
                raise ValueError("must have texts as names")  # noqa: TRY004 - pydantic reports it
            check_text(name)
    elif isinstance(item, str):
        check_text(item)
    elif isinstance(item, float) and not math.isfinite(item):
        raise ValueError("must not contain NaN or Infinity: JSON has no such numbers")
    elif isinstance(item, int | float) and abs(item) > MAX_INTEGER:
        raise ValueError(f"must not contain numbers beyond ±{MAX_INTEGER}: write them as texts")


# Where an item is: where its object or list is, and its name or number in that.
_Path = tuple[Any, str | int] | None


def _place_of(wanted: Any, value: Any) -> str:
    """Return the names and numbers that lead to an item of a value, to stand before what is wrong with it."""
    waiting: list[tuple[Any, _Path]] = [(value, None)]
    while waiting:
        item, path = waiting.pop()
        if item is wanted:
            steps: list[str] = []
            while path is not None:
                path, step = path
                steps.append(str(step)[:LONGEST_STEP])
            return f"{'.'.join(reversed(steps))}: " if steps else ""
        if isinstance(item, dict):
            waiting.extend((inner, (path, name)) for name, inner in reversed(item.items()))
        elif isinstance(item, list):
            waiting.extend((inner, (path, place)) for place, inner in reversed(list(enumerate(item))))
    return ""


def check_size(value: Any, most: int) -> None:
    """Raise ValueError for a JSON value whose canonical text has more than so many bytes.

    Numbers count as PostgreSQL writes them, without exponents.
    """
    if len(to_json(value)) * _MOST_GROWTH <= most:
        return  # nearly every value, at a small part of the cost
    size = len(canonical_json(value)) + sum(_zeros(number) for number in _floats(value))
    if size > most:
        raise ValueError(f"must have at most {most} bytes of JSON, not {size}")


def _floats(value: Any) -> Iterator[float]:
    waiting: list[Iterable[Any]] = [(value,)]
    while waiting:
        for item in waiting.pop():
            if isinstance(item, float):
                yield item
            elif isinstance(item, Mapping):
                waiting.append(item.values())
            elif isinstance(item, list | tuple):
                waiting.append(item)


def _zeros(number: float) -> int:
    """Return how many zeros stand before the first digit of a number that is written without an exponent."""
    return -math.floor(math.log10(abs(number))) if 0 < abs(number) < _SMALLEST_WRITTEN_OUT else 0


def _is_number(value: Any) -> Any:
    """Refuse what only looks like a number: true, and digits in quotes."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number, not true or false")
    if isinstance(value, str | bytes):
        raise PydanticCustomError("number", "must be a number, without quotes")
    return value


SafeText = Annotated[str, AfterValidator(check_text)]
# A name, a note or another text that people read in a line.
Line = Annotated[str, AfterValidator(check_line)]
SafeObject = Annotated[dict[str, JsonValue], AfterValidator(check_json)]

# Numbers and truth values of JSON as they are: 3.0 is the whole number 3, but "3" and true are no numbers, 1 and "off"
# are no truth values.
WholeNumber = Annotated[int, BeforeValidator(_is_number)]
Number = Annotated[float, BeforeValidator(_is_number)]
Truth = Annotated[bool, Strict()]
