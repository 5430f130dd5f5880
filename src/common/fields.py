"""Name the field that is wrong in the words of its sender, and say what is allowed.

pydantic names also its own types on the way to a field; what the sender never wrote is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

Place = Sequence[str | int]

# How alike, from 0 to 1, a name must be to one that is known for it to be a mistyped one; of what is longer only the
# beginning is compared, so that a name of megabytes costs nothing.
NEAR = 0.75
LONGEST_COMPARED = 100

# What pydantic says of these in words of Python.
_PLAIN: Mapping[str, str] = {
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be an object"),
    "invalid-json-value": "must be a text, a number, true, false, null, a list or an object",
}


def place_in(given: Any, place: Place) -> list[str | int]:
    """Return the part of a place that leads through what was given; the last name may be one that is missing there."""
    found: list[str | int] = []
    for number, part in enumerate(place, start=1):
        if isinstance(given, Mapping) and (part in given or (number == len(place) and _is_name(part))):
            given = given.get(part)
        elif isinstance(given, Sequence) and isinstance(part, int) and part < len(given):
            given = given[part]
        else:
            continue
        found.append(part)
    return found


def _is_name(part: str | int) -> bool:
    return isinstance(part, str) and part.isidentifier()


def problem_in(found: Mapping[str, Any], model: Any) -> str:
    """Return what is wrong, from what pydantic found in something that was to be of the type `model`."""
    if found["type"] == "extra_forbidden" and (names := names_at(model, found["loc"][:-1])):
        return not_known(found["loc"][-1], names)
    message: str = _PLAIN.get(found["type"], found["msg"])
    return message.removeprefix("Value error, ")


def not_known(name: str | int, names: Iterable[str]) -> str:
    """Return what is wrong with a name that is none of these, with the one that may have been meant."""
    allowed = sorted(names)
    near = get_close_matches(str(name)[:LONGEST_COMPARED], allowed, n=1, cutoff=NEAR)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return f"is not known here{meant}; allowed: {', '.join(allowed)}"


def names_at(model: Any, place: Place) -> list[str]:
    """Return the names of the fields that an object at a place may have, sorted; none where that is not known."""
    names: dict[str, Any] = {
        field.alias or name: field.annotation for one in _models_in(model) for name, field in one.model_fields.items()
    }
    if not place:
        return sorted(names)
    step, *rest = place
    return names_at(names.get(str(step), model), rest) if names else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
