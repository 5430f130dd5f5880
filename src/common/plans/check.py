"""Whether a plan can be run at all: every mistake that can be known before anything runs, in one sentence."""

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from common.compose import COMPOSE_REPAIR
from common.errors import InvalidField
from common.fields import not_known
from common.json_rules import check_json, check_size
from common.plans.hints import check_hints
from common.plans.model import Condition, Plan, Step
from common.plans.order import Order, order_of
from common.plans.references import Reference, Scope, find, has_references, references_in
from common.rest.identities import Role
from common.work import MAX_PARAMETERS_BYTES, PARAMETERS, check_parameters

MAX_PLAN_BYTES = 2 * 1024 * 1024
# How often all steps together can begin, with the rounds of their loops.
MOST_BEGUN = 10_000
MOST_NAMED = 20
NO_INPUTS: Mapping[str, Any] = MappingProxyType({})


def check(plan: Plan, inputs: Mapping[str, Any] = NO_INPUTS) -> None:
    """Raise `InvalidField` for the first thing in a plan that cannot be, given the inputs of its run."""
    order = order_of(plan)
    _check_sizes(plan, inputs)
    given = {**plan.inputs, **inputs}
    used = set(plan.inputs)
    late = _late(order)
    for step in plan.steps:
        place = order.places[step.name]
        _check_keys(step, place)
        _check_roles(step, place)
        _check_begins(order, step, place, late)
        for where, reference, own in _references(step, place):
            if reference.source == "steps":
                _check_step(order, step, where, reference, own=own)
            if reference.source == "inputs":
                used.add(reference.path[0])
                _check_input(given, where, reference)
        _check_parameters(step.work_type, step.parameters, f"{place}.parameters")
        check_hints(step.hints, f"{place}.hints")
        if step.undo is not None:
            check_hints(step.undo.hints, f"{place}.undo.hints")
            _check_parameters(step.undo.work_type, step.undo.parameters, f"{place}.undo.parameters")
    _check_rounds(order)
    if unused := next((name for name in inputs if name not in used), None):
        raise InvalidField(f"inputs.{unused[:100]}", f"is no input of this plan; it has: {_named(used)}")


def _check_sizes(plan: Plan, inputs: Mapping[str, Any]) -> None:
    try:
        check_size(plan.model_dump(mode="json", exclude_defaults=True), MAX_PLAN_BYTES)
    except ValueError as problem:
        raise InvalidField("plan", str(problem)) from None
    try:
        check_size(check_json(dict(inputs)), MAX_PARAMETERS_BYTES)
    except ValueError as problem:
        raise InvalidField("inputs", str(problem)) from None


def _check_keys(step: Step, place: str) -> None:
    for field, key in (("ordering_key", step.ordering_key), ("concurrency_key", step.concurrency_key)):
        if key is not None and "${" in key:
            raise InvalidField(f"{place}.{field}", "takes no references: it is the same in every run of the plan")
    if (step.concurrency_key is None) != (step.concurrency_limit is None):
        raise InvalidField(f"{place}.concurrency_limit", "goes with 'concurrency_key': give both or none of them")


def _check_roles(step: Step, place: str) -> None:
    for at, role in enumerate(() if step.approval is None else step.approval.roles):
        if role not in list(Role):
            raise InvalidField(f"{place}.approval.roles[{at}]", f"{role!r} is no role; allowed: {', '.join(Role)}")


def _check_parameters(work_type: str, parameters: Mapping[str, Any], place: str) -> None:
    """Raise `InvalidField` for a parameter that a work type of Chiffon does not have or, where none of them refers to
    anything, does not allow.
    """
    model = PARAMETERS.get(work_type)
    if model is None or work_type == COMPOSE_REPAIR:  # of which no plan of a caller may have a step
        return
    if not has_references(parameters):
        check_parameters(work_type, parameters, place)
    elif unknown := next((name for name in parameters if name not in model.model_fields), None):
        raise InvalidField(f"{place}.{unknown[:100]}", not_known(unknown, model.model_fields))


def _check_begins(order: Order, step: Step, place: str, late: Collection[str]) -> None:
    """Raise `InvalidField` for a step that nothing could ever begin."""
    needs = order.needs[step.name]
    if step.when == "failed" and not needs:
        raise InvalidField(
            f"{place}.when", "is 'failed', and the step needs none that could fail: it would never begin"
        )
    if step.when != "succeeded" and not isinstance(step.when, Condition):
        return
    if found := next((need for need in needs if need in late), None):
        raise InvalidField(
            f"{place}.when",
            f"lets it never begin: it needs {found!r}, which begins only after a failure, and then only steps with "
            "'failed' or 'always' begin; 'not_failed' lets it begin when that is skipped",
        )


def _late(order: Order) -> set[str]:
    """Return the steps that begin only when the run has failed."""
    may_fail = [name for name, step in order.steps.items() if step.may_fail]
    return {
        name
        for name, step in order.steps.items()
        if step.when == "failed" and not any(order.is_before(other, name) for other in may_fail)
    }


def _references(step: Step, place: str) -> Iterator[tuple[str, Reference, bool]]:
    """Yield the references of a step, each with its place, and whether the step has ended when it is looked up."""
    own = [(step.parameters, "parameters"), (step.hints, "hints")]
    if isinstance(step.when, Condition):
        own.append((step.when.model_dump(exclude_none=True), "when"))
    over: list[tuple[Any, str]] = []
    if step.repeat is not None:
        over.append((step.repeat.until.model_dump(exclude_none=True), "repeat.until"))
    if step.undo is not None:
        over += [(step.undo.parameters, "undo.parameters"), (step.undo.hints, "undo.hints")]
    for parts, is_over in ((own, False), (over, True)):
        for value, field in parts:
            for where, reference in references_in(value, f"{place}.{field}"):
                yield where, reference, is_over


def _check_step(order: Order, step: Step, where: str, reference: Reference, *, own: bool) -> None:
    name = reference.step
    if name not in order.steps:
        raise InvalidField(where, f"{reference} refers to {name[:100]!r}, which is no step of this plan")
    if order.is_before(name, step.name) or (own and name == step.name):
        return
    if not own and order.are_in_a_loop(name, step.name):
        if reference.is_optional:
            return
        raise InvalidField(
            where, f"{reference} has no value in the first round of the loop; end it with '?', which lets it have none"
        )
    raise InvalidField(
        where, f"{reference} refers to {name!r}, which {step.name!r} does not wait for, neither itself nor by its needs"
    )


def _check_input(given: Mapping[str, Any], where: str, reference: Reference) -> None:
    is_there, _ = find(reference, Scope(given, {}, lambda _: {}))
    if is_there or reference.is_optional:
        return
    if reference.path[0] in given:
        raise InvalidField(where, f"{reference} refers to a part of an input that this does not have")
    raise InvalidField(where, f"{reference} refers to an input that is not given; given: {_named(given)}")


def _check_rounds(order: Order) -> None:
    begun = 0
    for name in order.steps:
        times = 1
        for end in order.around(name):
            repeat = order.steps[end].repeat
            times *= 1 if repeat is None else repeat.at_most
        begun += times
    if begun > MOST_BEGUN:
        raise InvalidField("steps", f"could begin {begun} times, with all rounds of their loops; at most {MOST_BEGUN}")


def _named(names: Collection[str]) -> str:
    shown = [name[:100] for name in sorted(names)[:MOST_NAMED]]
    return ", ".join(shown) + (", …" if len(names) > MOST_NAMED else "") or "none"
