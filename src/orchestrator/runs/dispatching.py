"""The task that a step of a run is, and whether a plan's steps could be dispatched at all."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID, uuid5

from common.errors import InvalidField
from common.plans.hints import hints_of
from common.plans.model import Plan, Step, Undo
from common.plans.references import has_references
from common.policy.model import ApprovalDemand
from common.rest.runs import StepKind
from orchestrator.identities.model import Caller
from orchestrator.policy.service import RefusedByPolicy, check_planned
from orchestrator.runs.model import NewLink, NewRun, Run, service_of
from orchestrator.tasks.dispatch import UnknownWorkType, agent_type_for, check_keys
from orchestrator.tasks.model import NewTask

# By which its tasks are found.
LABEL = "run"

# `OrchestratorService.task_of`: checks work, and asks the policy.
MakeTask = Callable[..., NewTask]


@dataclass(frozen=True, slots=True)
class Origin:
    """What the tasks of a run have from it. `is_repair`: the orchestrator planned it, for a service that it knows."""

    run_id: UUID
    request_id: UUID
    trace_id: UUID
    title: str
    requested_by: Caller
    is_repair: bool

    @classmethod
    def of(cls, run: Run | NewRun) -> "Origin":
        title = run.name or str(run.run_id)
        is_repair = service_of(run.about) is not None
        return cls(run.run_id, run.request_id, run.trace_id, title, run.requested_by, is_repair)


def task_id_for(run_id: UUID, step: str, kind: StepKind, number: int) -> UUID:
    """Return the id of the task of a step: the same whenever it is dispatched for the same row."""
    return uuid5(run_id, f"{kind}/{step}/{number}")


def task_for(origin: Origin, plan: Plan, link: NewLink, make: MakeTask) -> NewTask:
    """Return the task to dispatch for a row.

    Raises `InvalidField`, `UnknownWorkType` and `RefusedByPolicy`.
    """
    step = next(step for step in plan.steps if step.name == link.step)
    part = step if link.kind is StepKind.STEP else step.undo
    if part is None:
        raise InvalidField("undo", f"the step {step.name!r} has none")
    task = make(
        task_id_for(origin.run_id, link.step, link.kind, link.number),
        part.work_type,
        part.parameters if link.parameters is None else link.parameters,
        part.priority,
        hints=hints_of(part.hints if link.hints is None else link.hints, "hints"),
        request_id=uuid5(origin.request_id, f"{link.kind}/{link.step}/{link.number}"),
        trace_id=origin.trace_id,
        idempotent=part.idempotent,
        max_attempts=part.max_attempts,
        name=f"{origin.title}: {'' if link.kind is StepKind.STEP else 'undo '}{link.step}",
        labels={LABEL: origin.title},
        requested_by=origin.requested_by,
        is_repair=origin.is_repair,
        **(_terms(part) if isinstance(part, Step) else {}),
    )
    task = replace(task, pause=link.pause)
    demand = stricter(task.ruling.approval, part.approval if isinstance(part, Step) else None)
    return task if demand is task.ruling.approval else replace(task, ruling=replace(task.ruling, approval=demand))


def _terms(step: Step) -> dict[str, object]:
    seconds = step.expires_after_seconds
    return {
        "ordering_key": step.ordering_key,
        "concurrency_key": step.concurrency_key,
        "concurrency_limit": step.concurrency_limit,
        "expires_after": None if seconds is None else timedelta(seconds=seconds),
    }


def stricter(one: ApprovalDemand | None, other: ApprovalDemand | None) -> ApprovalDemand | None:
    """Return what satisfies both: the more people, of a role that counts for both, for the shorter time.

    Raises `InvalidField` when there is no such role.
    """
    if one is None or other is None:
        return one or other
    roles = tuple(role for role in one.roles if role in other.roles)
    if not roles:
        raise InvalidField(
            "approval.roles",
            f"none of {', '.join(other.roles)} counts for the policy, too, which asks for: {', '.join(one.roles)}",
        )
    return ApprovalDemand(
        approvers=max(one.approvers, other.approvers),
        roles=roles,
        request_minutes=min(one.request_minutes, other.request_minutes),
        valid_minutes=min(one.valid_minutes, other.valid_minutes),
    )


def check_dispatch(new: NewRun, make: MakeTask, routes: Mapping[str, str]) -> None:
    """Raise what keeps a step from being dispatched, as far as that is known before its references have values.

    Raises `InvalidField`, whose field names the step, and `RefusedByPolicy`.
    """
    origin = Origin.of(new)
    for number, step in enumerate(new.plan.steps):
        for part, kind, place in _parts(step, f"steps[{number}]"):
            try:
                if has_references(part.parameters) or has_references(part.hints):
                    _check_apart(part, routes, is_repair=origin.is_repair)
                else:
                    task_for(origin, new.plan, NewLink(step.name, kind, 1), make)
            except UnknownWorkType:
                known = ", ".join(sorted(routes))
                raise InvalidField(f"{place}.work_type", f"{part.work_type!r} is not known; allowed: {known}") from None
            except InvalidField as error:
                field = error.field if error.field in ("name", "labels") else f"{place}.{error.field}"
                raise InvalidField(field, error.problem) from None
            except RefusedByPolicy as error:
                raise RefusedByPolicy(replace(error.refused, reason=f"{place}: {error.refused.reason}")) from None


def _parts(step: Step, place: str) -> Iterator[tuple[Step | Undo, StepKind, str]]:
    yield step, StepKind.STEP, place
    if step.undo is not None:
        yield step.undo, StepKind.UNDO, f"{place}.undo"


def _check_apart(part: Step | Undo, routes: Mapping[str, str], *, is_repair: bool) -> None:
    """Check what does not depend on the values of references."""
    check_planned(part.work_type, is_repair=is_repair)
    hints = {name: hint for name, hint in part.hints.items() if not has_references(hint)}
    agent_type_for(part.work_type, hints, routes)
    if isinstance(part, Step):
        check_keys(part.ordering_key, part.concurrency_key, part.concurrency_limit)
