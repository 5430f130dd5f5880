"""Of reports that arrive together what matters is stored, and a host is told when it may forget how its work ended."""

from typing import Any
from uuid import UUID

import pytest

from common.messages import StepStatus, WorkStatus
from common.orders import StepsStored
from orchestrator.steps.model import NewStep
from orchestrator.steps.rules import answers_to, apart, reports_of
from tests.factories import make_status, make_step

TASK, OTHER_TASK, AGENT, STRANGER = (UUID(int=number) for number in range(4))
BEGUN, DONE, FAILED = StepStatus.IN_PROGRESS, StepStatus.SUCCEEDED, StepStatus.FAILED


def said(name: str, status: StepStatus, message: str = "", *, by: UUID = AGENT, attempt: int = 1) -> WorkStatus:
    return make_status(TASK, by, attempt=attempt, steps=[make_step(0, name, status=status, message=message)])


def kept(*statuses: WorkStatus) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (name, message) of what is to be stored, first of what is under way."""

    def shown(steps: list[NewStep]) -> list[tuple[str, str]]:
        return [(step.report.name, step.report.message) for step in steps]

    under_way, ended = apart(reports_of(statuses))
    return shown(under_way), shown(ended)


def test_a_step_that_begins_and_ends_in_one_message_does_both() -> None:
    assert kept(said("build", BEGUN, "a"), said("build", DONE, "b")) == ([("build", "a")], [("build", "b")])


def test_of_many_reports_of_one_step_the_last_before_its_end_counts_and_the_first_of_its_end() -> None:
    reports = [said("build", BEGUN, "1"), said("build", BEGUN, "2"), said("build", DONE, "3"), said("build", DONE, "4")]

    assert kept(*reports) == ([("build", "2")], [("build", "3")])


def test_what_comes_after_the_end_of_a_step_is_late() -> None:
    assert kept(said("build", FAILED, "no"), said("build", BEGUN, "late"), said("build", DONE, "later")) == (
        [],
        [("build", "no")],
    )


@pytest.mark.parametrize("other", [{"by": STRANGER}, {"attempt": 2}], ids=str)
def test_steps_of_another_agent_or_attempt_are_others(other: dict[str, Any]) -> None:
    assert kept(said("build", DONE, "forged", **other), said("build", BEGUN, "own")) == (
        [("build", "own")],
        [("build", "forged")],
    )


@pytest.mark.parametrize("status", [DONE, FAILED, StepStatus.SKIPPED])
def test_a_host_is_told_when_its_last_step_is_final(status: StepStatus) -> None:
    steps = [make_step(5, "rollback", status=status), make_step(4, "verify", status=DONE)]

    told = answers_to([make_status(TASK, AGENT, attempt=3, steps=steps)])

    assert told == [(AGENT, StepsStored(task_id=TASK, attempt=3, through="rollback"))]


def test_a_host_is_told_of_nothing_that_it_must_not_forget_yet() -> None:
    assert answers_to([said("verify", DONE), said("rollback", BEGUN), make_status(TASK, AGENT)]) == []


def test_a_host_is_told_once_of_an_attempt_however_often_it_said_so() -> None:
    end = said("rollback", DONE)
    other = make_status(OTHER_TASK, AGENT, steps=[make_step(5, "rollback", status=DONE)])

    told = answers_to([end, end, other, said("rollback", DONE, by=STRANGER)])

    assert [(agent_id, order.task_id) for agent_id, order in told] == [
        (AGENT, TASK),
        (AGENT, OTHER_TASK),
        (STRANGER, TASK),
    ]
