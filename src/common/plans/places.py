"""Where something stands in a plan, as people read it: `steps[3].parameters.argv[0]`."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from common.errors import InvalidField
from common.fields import place_in, problem_in
from common.json_rules import LONGEST_STEP


def below(place: str, step: str | int) -> str:
    """Return the place of a part: by its name in an object, by its number in a list."""
    if isinstance(step, int):
        return f"{place}[{step}]"
    return f"{place}.{step[:LONGEST_STEP]}" if place else step[:LONGEST_STEP]


def place_of(steps: Sequence[str | int], start: str = "") -> str:
    """Return the place that names and numbers lead to."""
    for step in steps:
        start = below(start, step)
    return start


def invalid(error: ValidationError, given: Any, model: Any, start: str = "") -> InvalidField:
    """Return the first mistake that pydantic found in something that was to be of a model, in one sentence."""
    found = _first(error.errors(include_url=False, include_context=False, include_input=False))
    return InvalidField(place_of(place_in(given, found["loc"]), start) or "plan", problem_in(found, model))


def _first(mistakes: Sequence[Any]) -> Any:
    """Return the mistake to name: the first, but a mistyped name rather than the field that is missing for it."""
    first = mistakes[0]
    if first["type"] != "missing":
        return first
    unknown = (one for one in mistakes if one["type"] == "extra_forbidden" and one["loc"][:-1] == first["loc"][:-1])
    return next(unknown, first)
