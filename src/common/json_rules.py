"""What JSON may contain here, beyond its grammar.

PostgreSQL's jsonb refuses NUL, UTF-8 refuses lone surrogates, JSON has no NaN, a value nested too deep breaks the
reader that comes after, and many programs read an integer beyond 2^53 as another one (RFC 7493); so all of these are
refused where they come in.
"""

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, JsonValue, Strict
from pydantic_core import PydanticCustomError

MAX_DEPTH = 64
MAX_INTEGER = 2**53 - 1


def check_text(text: str) -> str:
    """Return the text, or raise ValueError if it cannot be stored."""
    if "\x00" in text:
        raise ValueError("must not contain the NUL character (U+0000)")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode: it contains a lone surrogate") from None
    return text


def check_json(value: Any) -> Any:
    """Return the value, or raise ValueError naming the first thing in it that cannot be stored or sent on."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"must not be nested deeper than {MAX_DEPTH} levels")
        if isinstance(item, str):
            check_text(item)
        elif isinstance(item, dict):
            for key, inner in item.items():
                if not isinstance(key, str):
                    raise ValueError("must have texts as names")  # noqa: TRY004 - pydantic reports it
                check_text(key)
                waiting.append((inner, depth + 1))
        elif isinstance(item, list):
            waiting.extend((inner, depth + 1) for inner in item)
        else:
            try:
                _check_number(item)
            except ValueError as problem:
                place = ".".join(map(str, _way_to(item, value, MAX_DEPTH) or ()))
                raise ValueError(f"{problem} ({place})" if place else str(problem)) from None
    return value


def _way_to(item: Any, value: Any, deepest: int) -> list[str | int] | None:
    """Return the names and positions that lead to an item of a value; None when it is not there, or deeper."""
    if value is item:
        return []
    if not deepest:
        return None
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next(([step, *way] for step, one in inner if (way := _way_to(item, one, deepest - 1)) is not None), None)


def _check_number(item: Any) -> None:
    if isinstance(item, float) and not math.isfinite(item):
        raise ValueError("must not contain NaN or Infinity: JSON has no such numbers")
    # Floats of that size are integers, too, and PostgreSQL's jsonb writes them as such.
    if isinstance(item, int | float) and abs(item) > MAX_INTEGER:
        raise ValueError(f"must not contain integers beyond ±{MAX_INTEGER}: write them as texts")


def _is_number(value: Any) -> Any:
    """Refuse what only looks like a number: true, and digits in quotes."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number, not true or false")
    if isinstance(value, str | bytes):
        raise PydanticCustomError("number", "must be a number, without quotes")
    return value


SafeText = Annotated[str, AfterValidator(check_text)]
SafeObject = Annotated[dict[str, JsonValue], AfterValidator(check_json)]

# Numbers and truth values of JSON as they are: 3.0 is the whole number 3, but "3" and true are no numbers, 1 and "off"
# are no truth values.
WholeNumber = Annotated[int, BeforeValidator(_is_number)]
Number = Annotated[float, BeforeValidator(_is_number)]
Truth = Annotated[bool, Strict()]
