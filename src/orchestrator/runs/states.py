"""How the steps of a run stand by the tasks that they are: pure decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import assert_never
from uuid import UUID

from common.compose import COMPOSE_REPAIR
from common.lifecycle import Status
from common.messages import LAST_STEP, StepStatus
from common.plans.model import Plan
from common.plans.order import order_of
from common.plans.references import references_in
from common.rest.runs import RunStepStatus
from orchestrator.runs.history import StepKey, StepState
from orchestrator.runs.model import Link, ToldFor
from orchestrator.steps.model import TaskStep

# The inner steps of tasks, each task's of its newest attempt that has any.
Inner = Mapping[UUID, Sequence[TaskStep]]

TOLD = frozenset({"result", "output"})


def told_of(plan: Plan) -> set[ToldFor]:
    """Return of which steps the results or output are looked at, and for which steps before those begin.

    None stands for what is looked at again and again: the ends of loops, undos, and what loops begin once more.
    """
    in_loops = {name for loop in order_of(plan).loops.values() for name in loop}
    found: set[ToldFor] = set()
    for step in plan.steps:
        said = step.model_dump(exclude_defaults=True)
        lasting = {name: said.pop(name) for name in ("repeat", "undo") if name in said}
        found |= {(name, None) for name in _told_in(lasting)}
        found |= {(name, None if step.name in in_loops else step.name) for name in _told_in(said)}
    return found


def _told_in(value: object) -> set[str]:
    """Return the steps whose results or output a part of a plan refers to."""
    return {
        reference.step
        for _, reference in references_in(value, "")
        if reference.source == "steps" and reference.path[0] in TOLD
    }


def is_owned(link: Link) -> bool:
    """Say whether the host owns how a task ends: it takes back what it did, whatever the ledger says meanwhile."""
    return link.work_type == COMPOSE_REPAIR and link.attempt > 0 and link.agent_id is not None


def has_settled(link: Link, inner: Inner) -> bool:
    """Say whether a task that has ended is over on its host, too."""
    return not is_owned(link) or link.status is Status.COMPLETED or _last(link, inner) is not None


def unsettled(links: Sequence[Link], inner: Inner) -> list[Link]:
    """Return the rows whose tasks have ended in the ledger while their hosts have not said how."""
    return [
        link
        for link in links
        if link.problem is None
        and link.status is not None
        and link.status.is_final
        and not link.superseded
        and not has_settled(link, inner)
    ]


def states_of(
    links: Sequence[Link], inner: Inner, *, queued_at: datetime
) -> tuple[dict[StepKey, StepState], dict[StepKey, list[StepState]]]:
    """Return how the newest rows of steps and undos stand, and those before them, oldest first.

    `queued_at` is when the run was started, or retried last.
    """
    newest: dict[StepKey, StepState] = {}
    earlier: dict[StepKey, list[StepState]] = {}
    for link in links:
        state = replace(state_of(link, inner), is_of_this_try=link.at >= queued_at)
        if link.superseded:
            earlier.setdefault(link.key, []).append(state)
        else:
            newest[link.key] = state
    return newest, earlier


def state_of(link: Link, inner: Inner) -> StepState:
    """Return how the step of a row stands."""
    status = status_of(link, inner)
    return StepState(
        link.number,
        status,
        result=link.result,
        output=link.output,
        exit_code=link.exit_code,
        error=error_of(link, inner),
        task_id=link.task_id,
        agent_id=link.agent_id,
        finished_at=link.at if link.problem is not None else link.finished_at,
        undone=_undone(link, inner) if status in (RunStepStatus.FAILED, RunStepStatus.CANCELLED) else None,
    )


def status_of(link: Link, inner: Inner) -> RunStepStatus:
    """Return where the step of a row stands."""
    if link.problem is not None:
        return RunStepStatus.FAILED
    match link.status:
        case None:
            return RunStepStatus.PENDING  # its task is on the way into the ledger
        case Status.AWAITING_APPROVAL:
            return RunStepStatus.AWAITING_APPROVAL
        case Status.PENDING:
            return RunStepStatus.RUNNING if link.attempt else RunStepStatus.PENDING
        case Status.RUNNING:
            return RunStepStatus.RUNNING
        case Status.COMPLETED:
            return RunStepStatus.SUCCEEDED
        case Status.FAILED:
            return RunStepStatus.FAILED if has_settled(link, inner) else RunStepStatus.RUNNING
        case Status.CANCELLED:
            is_over = has_settled(link, inner) if is_owned(link) else not link.is_stopping
            return RunStepStatus.CANCELLED if is_over else RunStepStatus.RUNNING
        case status:
            assert_never(status)


def error_of(link: Link, inner: Inner) -> str | None:
    """Return why the step of a row failed, in the words of its host where that owns the end."""
    if link.problem is not None:
        return link.problem
    failed = [step for step in inner_of(link, inner) if step.status is StepStatus.FAILED and step.name != LAST_STEP]
    if link.error_message or not failed or not is_owned(link):
        return link.error_message
    return f"{failed[0].name}: {failed[0].message}"


def inner_of(link: Link, inner: Inner) -> Sequence[TaskStep]:
    """Return the inner steps of the last attempt of a row's task."""
    steps = () if link.task_id is None else inner.get(link.task_id, ())
    return [step for step in steps if step.attempt == link.attempt]


def _last(link: Link, inner: Inner) -> TaskStep | None:
    """Return the inner step with which the host says how it ended; None before it does."""
    return next((step for step in inner_of(link, inner) if step.name == LAST_STEP and step.status.is_final), None)


def _undone(link: Link, inner: Inner) -> bool | None:
    last = _last(link, inner) if is_owned(link) else None
    match None if last is None else last.status:
        case StepStatus.SUCCEEDED:
            return True
        case StepStatus.FAILED:
            return False
        case _:
            return None
