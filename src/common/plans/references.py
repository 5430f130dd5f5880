"""References: where a text of a plan stands for a value of the run, of its inputs, or of a step.

`${inputs.service}`, `${run.id}`, `${steps.build.result.image}`; `$${` is the text `${`. What stands for a value is
never read again, so no value can bring references of its own.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from common.canonical import canonical_json
from common.errors import InvalidField
from common.json_rules import check_json, check_size
from common.plans.places import below
from common.work import MAX_PARAMETERS_BYTES

OF_A_RUN = ("id", "name")
OF_A_STEP = ("status", "result", "output", "exit_code", "error", "task_id", "agent_id", "round", "artifacts")
LONGEST_SHOWN = 100

_BEGIN = "${"
_LITERAL = "$${"
_MARK = re.compile(r"\$?\$\{")
_INDEX = re.compile(r"[0-9]{1,6}")
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Reference:
    """What stands in a text for a value; `path` leads to it. With a `?` at its end there need be no such value."""

    text: str
    source: Literal["inputs", "run", "steps"]
    path: tuple[str, ...]
    step: str = ""
    is_optional: bool = False

    def __str__(self) -> str:
        return self.text if len(self.text) <= LONGEST_SHOWN else f"{self.text[:LONGEST_SHOWN]}…"


class MissingValue(InvalidField):
    """There is no value that a reference could stand for."""

    def __init__(self, place: str, reference: Reference) -> None:
        super().__init__(place, f"{reference} has no value; with a '?' before its '}}' it may have none")
        self.reference = reference


@dataclass(frozen=True, slots=True)
class Scope:
    """What references may stand for. `step` returns what is known of a step, by the names in `OF_A_STEP`."""

    inputs: Mapping[str, Any]
    run: Mapping[str, Any]
    step: Callable[[str], Mapping[str, Any]]


def parts_of(text: str) -> list[str | Reference]:
    """Return a text as the pieces that it is put together from. Raises `ValueError` for what is no reference."""
    parts: list[str | Reference] = []
    done = 0
    while (mark := _MARK.search(text, done)) is not None:
        parts.append(text[done : mark.start()])
        if mark[0] == _LITERAL:
            parts.append(_BEGIN)
            done = mark.end()
            continue
        end = text.find("}", mark.end())
        if end < 0:
            raise ValueError(f"has a '{_BEGIN}' without its '}}'; the text itself is written '{_LITERAL}'")
        done = end + 1
        parts.append(_reference(text[mark.start() : done]))
    parts.append(text[done:])
    return [part for part in parts if part != ""]


def references_in(value: Any, place: str) -> Iterator[tuple[str, Reference]]:
    """Yield the references in a JSON value, each with its place. Raises `InvalidField` for what is none."""
    waiting = [(value, place)]
    while waiting:
        item, where = waiting.pop()
        if isinstance(item, str):
            if _BEGIN in item:
                yield from ((where, part) for part in _checked(item, where) if isinstance(part, Reference))
        elif isinstance(item, dict):
            waiting.extend((inner, below(where, name)) for name, inner in reversed(item.items()))
        elif isinstance(item, list):
            waiting.extend((inner, below(where, number)) for number, inner in reversed(list(enumerate(item))))


def has_references(value: Any) -> bool:
    """Say whether a JSON value refers to others, so that it is known only while the run is on its way."""
    return any(True for _ in references_in(value, ""))


def find(reference: Reference, scope: Scope) -> tuple[bool, Any]:
    """Return whether there is what a reference stands for, and the value."""
    match reference.source:
        case "inputs":
            value = _at(scope.inputs, reference.path)
        case "run":
            value = _at(scope.run, reference.path)
        case "steps" if reference.path[0] == "artifacts":
            value = _artifact(scope.step(reference.step), reference.path[1])
        case "steps":
            value = _at(scope.step(reference.step), reference.path)
    return (False, None) if value is _ABSENT else (True, value)


def resolve(value: Any, scope: Scope, place: str, *, most_bytes: int = MAX_PARAMETERS_BYTES) -> Any:
    """Return a JSON value with the values of its references.

    A text that is one reference becomes its value, whatever that is; inside a longer text a value is put in as text.
    Raises `InvalidField`: `MissingValue`, or for a value that becomes too large or cannot be sent on.
    """
    resolved = _Filling(scope, place, most_bytes).filled(value, place)
    try:
        check_size(check_json(resolved), most_bytes)
    except ValueError as problem:
        raise InvalidField(place, str(problem)) from None
    return resolved


class _Filling:
    """Puts values in the place of references, as long as all of them together are not too large.

    Each is counted before it is copied: thousands of references may stand for one large value.
    """

    def __init__(self, scope: Scope, place: str, most_bytes: int) -> None:
        self._scope = scope
        self._place = place
        self._most = most_bytes
        self._left = most_bytes
        self._texts: dict[str, str] = {}

    def filled(self, value: Any, place: str) -> Any:
        if isinstance(value, str):
            return self._text(value, place) if _BEGIN in value else value
        if isinstance(value, dict):
            return {name: self.filled(inner, below(place, name)) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.filled(inner, below(place, number)) for number, inner in enumerate(value)]
        return value

    def _text(self, text: str, place: str) -> Any:
        parts = _checked(text, place)
        if len(parts) == 1 and isinstance(parts[0], Reference):
            value = self._value(parts[0], place)
            self._as_text(parts[0], value)
            return value
        return "".join(
            part if isinstance(part, str) else self._as_text(part, self._value(part, place)) for part in parts
        )

    def _value(self, reference: Reference, place: str) -> Any:
        is_there, value = find(reference, self._scope)
        if not is_there and not reference.is_optional:
            raise MissingValue(place, reference)
        return value

    def _as_text(self, reference: Reference, value: Any) -> str:
        text = self._texts.get(reference.text)
        if text is None:
            text = self._texts[reference.text] = _written(value, is_optional=reference.is_optional)
        self._left -= len(text)
        if self._left < 0:
            raise InvalidField(
                self._place, f"must have at most {self._most} bytes of JSON; with the values of references it has more"
            )
        return text


def _written(value: Any, *, is_optional: bool) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None and is_optional else canonical_json(value).decode()


def _checked(text: str, place: str) -> list[str | Reference]:
    try:
        return parts_of(text)
    except ValueError as problem:
        raise InvalidField(place, str(problem)) from None


def _reference(text: str) -> Reference:
    inner = text.removeprefix(_BEGIN).removesuffix("}")
    is_optional = inner.endswith("?")
    match inner.removesuffix("?").split("."):
        case ["inputs", *path] if path and all(path):
            return Reference(text, "inputs", tuple(path), is_optional=is_optional)
        case ["run", name] if name in OF_A_RUN:
            return Reference(text, "run", (name,), is_optional=is_optional)
        case ["steps", step, "artifacts", *name] if step and any(name):
            return Reference(text, "steps", ("artifacts", ".".join(name)), step, is_optional)
        case ["steps", step, "result", *path] if step and all(path):
            return Reference(text, "steps", ("result", *path), step, is_optional)
        case ["steps", step, name] if step and name in OF_A_STEP and name != "artifacts":
            return Reference(text, "steps", (name,), step, is_optional)
        case path:
            raise ValueError(_no_reference(text, path[0]))


def _no_reference(text: str, source: str) -> str:
    shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…}}"
    match source:
        case "inputs":
            allowed = "inputs.NAME, and names or numbers behind it"
        case "run":
            allowed = " or ".join(f"run.{name}" for name in OF_A_RUN)
        case "steps":
            allowed = f"steps.STEP. and one of {', '.join(OF_A_STEP)}; names may stand behind result and artifacts"
        case _:
            allowed = f"inputs.…, run.… or steps.…; the text itself is written '{_LITERAL}'"
    return f"{shown!r} is no reference; allowed: {allowed}"


def _artifact(known: Mapping[str, Any], name: str) -> Any:
    """Return an artifact as tasks receive files."""
    task_id = known.get("task_id")
    return _ABSENT if task_id is None else {"task": str(task_id), "artifact": name}


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and _INDEX.fullmatch(part) and int(part) < len(value):
            value = value[int(part)]
        else:
            return _ABSENT
    return value
