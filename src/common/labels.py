"""Labels: what an agent says that it has, and what work says that it needs."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from common.canonical import MAX_INTEGER
from common.json_rules import check_line, check_size

MOST_LABELS = 100
# Labels that permit: what a host keeps work from, and which secrets it holds. Agents announce them by themselves, and
# an enrolled agent has only those that its administrator pinned.
AUTHORITY = frozenset({"enforces", "secrets"})
MOST_OF_A_TASK = 32
LONGEST_TEXT = 200
MAX_LABELS_BYTES = 64 * 1024
LABEL_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_./-]{0,99}"

_NAME = re.compile(LABEL_PATTERN)
_KINDS = "a text, a number, true or false, or a list of texts"
_VALUE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "maxLength": LONGEST_TEXT},
        {"type": "number"},
        {"type": "boolean"},
        {"type": "array", "items": {"type": "string", "maxLength": LONGEST_TEXT}, "maxItems": MOST_LABELS},
    ]
}
_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {
            "type": "object",
            "additionalProperties": _VALUE_SCHEMA,
            "propertyNames": {"pattern": f"^{LABEL_PATTERN}$"},
            "maxProperties": MOST_LABELS,
        },
        {"type": "array", "items": {"type": "string", "pattern": f"^{LABEL_PATTERN}$"}, "maxItems": MOST_LABELS},
    ]
}


def labels_of(given: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Return labels by their names, in the order of the names; a list of names stands for labels that are true."""
    named = given if isinstance(given, Mapping) else dict.fromkeys(given, True)
    return {name: named[name] for name in sorted(named)}


def check_labels(given: Any) -> dict[str, Any]:
    """Return labels by their names; raises ValueError that names the first that cannot be one."""
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        given = dict.fromkeys(given, True)
    if not isinstance(given, Mapping):
        raise ValueError("must be an object of labels, or a list of their names")  # noqa: TRY004 - pydantic reports it
    if len(given) > MOST_LABELS:
        raise ValueError(f"must have at most {MOST_LABELS} labels")
    for name, value in given.items():
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no name of a label: letters, digits and _ . / - are allowed, at most 100")
        if (problem := _problem(value)) is not None:
            raise ValueError(f"{name}: {problem}")
    check_size(given, MAX_LABELS_BYTES)
    return dict(given)


def check_task_labels(given: Any) -> dict[str, str]:
    """Return the labels of a task, texts by their names; raises ValueError that names the first that cannot be one."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            if not isinstance(value, str):
                raise ValueError(f"{name}: must be a text")  # noqa: TRY004 - pydantic reports it
        if len(given) > MOST_OF_A_TASK:
            raise ValueError(f"must have at most {MOST_OF_A_TASK} labels")
        return check_labels(given)
    raise ValueError("must be an object of texts")


def _problem(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        # A comparison with NaN is false, and one with an infinity or an integer of any size is exact.
        return None if abs(value) <= MAX_INTEGER else f"must be a number from -{MAX_INTEGER} to {MAX_INTEGER}"
    texts = value if isinstance(value, list) else [value]
    if len(texts) > MOST_LABELS or not all(isinstance(text, str) for text in texts):
        return f"must be {_KINDS}"
    if any(len(text) > LONGEST_TEXT for text in texts):
        return f"must have at most {LONGEST_TEXT} characters"
    for text in texts:
        try:
            check_line(text)
        except ValueError as problem:
            return str(problem)
    return None


Labels = Annotated[dict[str, Any], BeforeValidator(check_labels), WithJsonSchema(_SCHEMA)]

TaskLabels = Annotated[
    dict[str, str],
    BeforeValidator(check_task_labels),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"type": "string", "maxLength": LONGEST_TEXT},
            "propertyNames": {"pattern": f"^{LABEL_PATTERN}$"},
            "maxProperties": MOST_OF_A_TASK,
        }
    ),
]
