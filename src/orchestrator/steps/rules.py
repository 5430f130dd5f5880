"""What of the reports about inner steps is to be stored, and what is answered: pure decisions."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from common.messages import LAST_STEP, WorkStatus
from common.orders import StepsStored
from orchestrator.steps.model import NewStep


def reports_of(statuses: Iterable[WorkStatus]) -> list[NewStep]:
    """Return the reports in messages, each with the attempt that it belongs to."""
    return [
        NewStep(status.task_id, status.attempt, status.agent_id, report)
        for status in statuses
        for report in status.steps
    ]


def apart(reports: Iterable[NewStep]) -> tuple[list[NewStep], list[NewStep]]:
    """Return what of the reports is to be stored: of each step the last before its end, and the first of its end."""
    under_way: dict[tuple[UUID, int, UUID, str], NewStep] = {}
    ended: dict[tuple[UUID, int, UUID, str], NewStep] = {}
    for new in reports:
        step = (new.task_id, new.attempt, new.agent_id, new.report.name)
        if new.report.status.is_final:
            ended.setdefault(step, new)
        elif step not in ended:
            under_way[step] = new
    return list(under_way.values()), list(ended.values())


def answers_to(statuses: Sequence[WorkStatus]) -> list[tuple[UUID, StepsStored]]:
    """Return what agents are told of reports that are dealt with: that a host may forget how an attempt ended."""
    said = {
        (status.agent_id, status.task_id, status.attempt): None
        for status in statuses
        if any(report.name == LAST_STEP and report.status.is_final for report in status.steps)
    }
    return [
        (agent_id, StepsStored(task_id=task_id, attempt=attempt, through=LAST_STEP))
        for agent_id, task_id, attempt in said
    ]
