"""How the steps of a repair stand, and from where it can be tried again: pure decisions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from common.messages import StepStatus
from common.rest.repairs import RepairStatus, RepairStepName, RepairStepStatus
from common.rest.runs import StepKind
from orchestrator.repairs.errors import InvalidResumeStep, RetryNotAllowed
from orchestrator.repairs.planner import ALL, PREPARE, Resumption, planned_steps, resume
from orchestrator.runs.model import Link, RunView, StepView
from orchestrator.steps.model import TaskStep

NOTHING_TO_TAKE_BACK = "Nothing had to be taken back."
OPEN = frozenset({RepairStatus.PENDING, RepairStatus.RUNNING, RepairStatus.AWAITING_APPROVAL})


@dataclass(frozen=True, slots=True)
class Shown:
    """A step of a repair as it stands. `task_id` is the task that does it, or did.

    `again`: it is to be done anew, and is not yet.
    """

    name: RepairStepName
    status: RepairStepStatus
    started_at: datetime | None = None
    finished_at: datetime | None = None
    task_id: UUID | None = None
    attempt: int = 0
    message: str | None = None
    again: bool = False


def shown_steps(view: RunView) -> list[Shown]:
    """Return the six steps of a repair.

    Each stands as the newest of the run's tasks says; what a retry does not do again stands as it was.
    """
    now, before = _reported(view.steps), _reported(view.earlier)
    planned = planned_steps(view.run.plan)
    tasks = {step.step: step.link.task_id for step in view.steps if step.link is not None}
    shown = []
    for name in RepairStepName:
        is_kept = name not in planned and name is not RepairStepName.ROLLBACK
        found = now.get(name) or (before.get(name) if is_kept else None)
        shown.append(_unreported(view, name, tasks.get(planned.get(name, ""))) if found is None else _as_told(found))
    return shown


def prepared_diff(view: RunView) -> list[str]:
    """Return the lines of the diff that people are asked about; none until it is prepared, or where nobody is asked."""
    results = (step.link.result for step in view.steps if step.step == PREPARE and step.link is not None)
    lines = next((result.get("diff") for result in results if isinstance(result, dict)), None)
    return [str(line) for line in lines] if isinstance(lines, list) else []


def resumption(view: RunView, status: RepairStatus, wanted: RepairStepName | None) -> Resumption:
    """Return how a repair is tried again: from a step, by default from the first that did not succeed.

    Raises `RetryNotAllowed` and `InvalidResumeStep`.
    """
    if status in OPEN:
        raise RetryNotAllowed(f"The run has not ended: it is {status}. Only a run that has ended is tried again.")
    if status is RepairStatus.SUCCEEDED:
        raise RetryNotAllowed("The run has succeeded: there is nothing to try again.")
    if wanted is RepairStepName.ROLLBACK:
        raise RetryNotAllowed("The host has rolled back by itself what there was: resume from the step that failed.")
    shown = {step.name: step for step in shown_steps(view)}
    possible = next((name for name in ALL if shown[name].status is not RepairStepStatus.SUCCEEDED), ALL[-1])
    first = wanted or possible
    if ALL.index(first) > ALL.index(possible):
        raise InvalidResumeStep(
            f"resume_from_step must be {possible.value!r} or a step before it: {possible.value!r} has not succeeded, "
            f"which {first.value!r} needs."
        )
    held = _held(view)
    task_id, agent_id = (None, None) if held is None else (held.task_id, held.agent_id)
    return resume(view.run.plan, first, of=task_id, at=agent_id)


def _held(view: RunView) -> Link | None:
    """Return the row of the task whose work its host still holds: the newest that has done anything there."""
    worked = (step.link for step in (*view.earlier, *view.steps) if step.link is not None and _has_worked(step.inner))
    return max(worked, key=lambda link: link.at, default=None)


def _has_worked(inner: Iterable[TaskStep]) -> bool:
    """Say whether a host has begun with a task. One that refused it reports a failed step, and nothing to take back."""
    return any(
        step.status is StepStatus.SUCCEEDED
        or (step.name == RepairStepName.ROLLBACK and step.status is not StepStatus.SKIPPED)
        for step in inner
    )


def _reported(steps: Sequence[StepView]) -> Mapping[str, TaskStep]:
    """Return what hosts reported last of each step."""
    return {inner.name: inner for step in steps if step.kind is StepKind.STEP for inner in step.inner}


def _as_told(inner: TaskStep) -> Shown:
    return Shown(
        RepairStepName(inner.name),
        RepairStepStatus(inner.status),
        inner.started_at,
        inner.finished_at,
        inner.task_id,
        inner.attempt,
        inner.message or None,
    )


def _unreported(view: RunView, name: RepairStepName, task_id: UUID | None) -> Shown:
    """Return a step of which its host has said nothing."""
    if view.run.finished_at is None:
        return Shown(name, RepairStepStatus.PENDING, task_id=task_id, again=bool(view.earlier))
    message = NOTHING_TO_TAKE_BACK if name is RepairStepName.ROLLBACK else None
    return Shown(name, RepairStepStatus.SKIPPED, task_id=task_id, message=message)
