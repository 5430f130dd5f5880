"""The work types that this agent can run: those that are built in, and those that its settings add."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from inspect import isabstract
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from agents.executors.ansible import AnsibleExecutor
from agents.executors.base import Executor, Host
from agents.executors.compose import ComposeExecutor
from agents.executors.echo import EchoExecutor
from agents.executors.metrics import MetricsExecutor
from agents.executors.shell import ShellExecutor
from common.errors import StartupRefused
from common.labels import check_labels
from common.schemas import JsonSchema, check_schema, schema_of
from common.work import PARAMETERS, WorkType

BUILT_IN: tuple[type[Executor[Any]], ...] = (
    EchoExecutor,
    ShellExecutor,
    AnsibleExecutor,
    MetricsExecutor,
    ComposeExecutor,
)

_NAME: TypeAdapter[str] = TypeAdapter(WorkType)


class ExecutorUnusable(StartupRefused):
    """The settings name an executor that cannot be used."""

    def __init__(self, reference: str, problem: str) -> None:
        super().__init__(f"[agent] executors: {reference!r} cannot be used: {problem}.")


def executors(host: Host, more: Sequence[str] = ()) -> dict[str, Executor[Any]]:
    """Return the executors that this host offers, by work type; `more` names classes, as `module:Class`.

    Raises `ExecutorUnusable`.
    """
    known: dict[str, Executor[Any]] = {}
    for one in BUILT_IN:
        _add(known, one.offer(host))
    taken = {one.kind for one in BUILT_IN}
    for reference in more:
        found = _load(reference)
        if found.kind in taken:
            raise ExecutorUnusable(reference, f"there is another executor for {found.kind!r}")
        taken.add(found.kind)
        try:
            _add(known, found.offer(host))
        except Exception as error:
            raise ExecutorUnusable(reference, f"offer raised {type(error).__name__}: {error}") from error
    return known


def announced_labels(known: Iterable[Executor[Any]], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the labels of executors and those that the agent has anyway, which count before them.

    Raises `ExecutorUnusable`.
    """
    labels = dict(own)
    for executor in known:
        try:
            labels = check_labels({**executor.labels(), **labels})
        except ValueError as problem:
            raise ExecutorUnusable(executor.kind, f"its labels: {problem}") from None
    return labels


def announced_schemas(known: Mapping[str, Executor[Any]]) -> dict[str, JsonSchema]:
    """Return the schemas of the parameters of all types that are not built in, so that orchestrators learn of them."""
    return {kind: schema_of(executor.parameters) for kind, executor in known.items() if kind not in PARAMETERS}


def _add(known: dict[str, Executor[Any]], executor: Executor[Any] | None) -> None:
    if executor is not None:
        known[executor.kind] = executor


def _load(reference: str) -> type[Executor[Any]]:
    """Import a class and check that it says what an executor must say. Raises `ExecutorUnusable`."""
    module, _, name = reference.partition(":")
    try:
        found = getattr(import_module(module), name)
    except Exception as error:
        raise ExecutorUnusable(reference, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, type) or not issubclass(found, Executor) or isabstract(found):
        raise ExecutorUnusable(reference, "it must be a class with Executor as its base, and carry_out")
    try:
        _NAME.validate_python(getattr(found, "kind", None))
    except ValidationError:
        raise ExecutorUnusable(reference, "kind must be a name of small letters, digits and '_'") from None
    model = getattr(found, "parameters", None)
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        raise ExecutorUnusable(reference, "parameters must be a pydantic model")
    try:
        check_schema(schema_of(model))
    except Exception as problem:
        raise ExecutorUnusable(reference, f"parameters: their JSON Schema {problem}") from None
    return found
