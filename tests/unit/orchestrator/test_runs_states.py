"""How a step stands by its task, also while its host has not said how the work ended."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from common.compose import COMPOSE_REPAIR
from common.lifecycle import Status
from common.messages import LAST_STEP, StepStatus
from common.plans.model import Plan
from common.rest.runs import RunStepStatus, StepKind
from orchestrator.runs.model import Link
from orchestrator.runs.states import error_of, state_of, states_of, told_of, unsettled
from orchestrator.steps.model import TaskStep

TASK, NOW = uuid4(), datetime.now(UTC)


def make_link(**values: Any) -> Link:
    given: dict[str, Any] = {
        "step": "one",
        "kind": StepKind.STEP,
        "number": 1,
        "task_id": TASK,
        "parameters": None,
        "hints": None,
        "problem": None,
        "superseded": False,
        "at": NOW,
        "work_type": "echo",
        "status": Status.RUNNING,
        "attempt": 1,
        "agent_id": uuid4(),
    }
    return Link(**{**given, **values})


def inner(name: str, status: StepStatus, *, attempt: int = 1, message: str = "") -> TaskStep:
    return TaskStep(TASK, attempt, 0, name, status, NOW, NOW, message)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"status": None, "work_type": None, "attempt": 0}, RunStepStatus.PENDING),
        ({"status": Status.AWAITING_APPROVAL, "attempt": 0}, RunStepStatus.AWAITING_APPROVAL),
        ({"status": Status.PENDING, "attempt": 0}, RunStepStatus.PENDING),
        ({"status": Status.PENDING, "attempt": 1}, RunStepStatus.RUNNING),
        ({"status": Status.RUNNING}, RunStepStatus.RUNNING),
        ({"status": Status.COMPLETED}, RunStepStatus.SUCCEEDED),
        ({"status": Status.FAILED}, RunStepStatus.FAILED),
        ({"status": Status.CANCELLED}, RunStepStatus.CANCELLED),
        ({"problem": "no", "status": None, "task_id": None}, RunStepStatus.FAILED),
        ({"problem": "no", "status": Status.COMPLETED}, RunStepStatus.FAILED),
    ],
)
def test_a_step_stands_where_its_task_does(values: dict[str, Any], expected: RunStepStatus) -> None:
    assert state_of(make_link(**values), {}).status is expected


def test_others_may_refer_to_the_agent_that_had_a_task() -> None:
    agent_id = uuid4()

    assert state_of(make_link(agent_id=agent_id), {}).values()["agent_id"] == str(agent_id)
    assert "agent_id" not in state_of(make_link(agent_id=None), {}).values()


def test_a_step_that_was_cancelled_runs_until_its_agent_has_stopped() -> None:
    stopping = make_link(status=Status.CANCELLED, is_stopping=True)

    assert state_of(stopping, {}).status is RunStepStatus.RUNNING
    assert unsettled([stopping], {}) == []


def test_what_has_begun_since_the_last_retry_is_of_this_try() -> None:
    old, new = make_link(at=NOW - timedelta(seconds=1)), make_link(step="two", at=NOW)

    newest, _ = states_of([old, new], {}, queued_at=NOW)

    assert {step: state.is_of_this_try for (step, _), state in newest.items()} == {"one": False, "two": True}


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_work_whose_end_the_host_owns_runs_until_the_host_says_how_it_ended(status: Status) -> None:
    link = make_link(work_type=COMPOSE_REPAIR, status=status)
    last = {TASK: [inner("build", StepStatus.FAILED), inner(LAST_STEP, StepStatus.SUCCEEDED)]}
    under_way = {TASK: [inner(LAST_STEP, StepStatus.IN_PROGRESS)]}
    of_another_attempt = {TASK: [inner(LAST_STEP, StepStatus.SUCCEEDED, attempt=2)]}

    for open_ones in ({}, under_way, of_another_attempt):
        assert state_of(link, open_ones).status is RunStepStatus.RUNNING
        assert unsettled([link], open_ones) == [link]
    settled = state_of(link, last)

    assert (settled.is_over, settled.undone) == (True, True)
    assert unsettled([link], last) == []


@pytest.mark.parametrize(
    ("rollback", "undone"), [(StepStatus.SUCCEEDED, True), (StepStatus.FAILED, False), (StepStatus.SKIPPED, None)]
)
def test_what_the_host_took_back_is_undone(rollback: StepStatus, undone: bool | None) -> None:
    link = make_link(work_type=COMPOSE_REPAIR, status=Status.FAILED)

    assert state_of(link, {TASK: [inner(LAST_STEP, rollback)]}).undone is undone


@pytest.mark.parametrize(
    "values",
    [
        {"status": Status.CANCELLED, "attempt": 0, "agent_id": None},
        {"status": Status.COMPLETED},
        {"status": Status.FAILED, "work_type": "echo"},
        {"status": Status.FAILED, "superseded": True},
    ],
    ids=["no host had it", "completed", "no host owns it", "superseded"],
)
def test_nobody_is_waited_for_where_there_is_nothing_to_say(values: dict[str, Any]) -> None:
    assert unsettled([make_link(**{"work_type": COMPOSE_REPAIR, **values})], {}) == []


def test_a_step_without_a_message_has_that_of_its_inner_step() -> None:
    link = make_link(work_type=COMPOSE_REPAIR, status=Status.CANCELLED)
    steps = {TASK: [inner("verify", StepStatus.FAILED, message="no answer"), inner(LAST_STEP, StepStatus.SUCCEEDED)]}

    assert error_of(link, steps) == "verify: no answer"
    assert error_of(make_link(error_message="lost", work_type=COMPOSE_REPAIR), steps) == "lost"


def test_the_newest_rows_stand_apart_from_those_before_them() -> None:
    rows = [make_link(number=number, superseded=number < 3) for number in (1, 2, 3)]
    undone = make_link(kind=StepKind.UNDO)

    newest, earlier = states_of([*rows, undone], {}, queued_at=NOW)

    assert {key: state.number for key, state in newest.items()} == {
        ("one", StepKind.STEP): 3,
        ("one", StepKind.UNDO): 1,
    }
    assert {key: [state.number for state in states] for key, states in earlier.items()} == {
        ("one", StepKind.STEP): [1, 2]
    }


def test_results_are_read_only_of_steps_that_others_refer_to_and_until_these_begin() -> None:
    def step(name: str, message: str) -> dict[str, Any]:
        return {"name": name, "work_type": "echo", "parameters": {"message": message}}

    plan = Plan.model_validate(
        {
            "steps": [
                step("a", ""),
                step("b", "${steps.a.result.x.y} ${run.id}"),
                step("c", "${steps.b.status}"),
                {**step("d", "$${steps.c.output}"), "when": {"value": "${steps.c.output?}", "equals": "1"}},
            ]
        }
    )

    assert told_of(plan) == {("a", "b"), ("c", "d")}


def test_results_are_read_as_long_as_a_loop_or_an_undo_may_refer_to_them() -> None:
    plan = Plan.model_validate(
        {
            "steps": [
                {"name": "a", "work_type": "echo", "parameters": {"message": ""}},
                {
                    "name": "b",
                    "work_type": "echo",
                    "parameters": {"message": "${steps.a.result.x}"},
                    "undo": {"work_type": "echo", "parameters": {"message": "${steps.b.output}"}},
                },
                {
                    "name": "c",
                    "work_type": "echo",
                    "parameters": {"message": "${steps.b.result.x}"},
                    "repeat": {
                        "until": {"value": "${steps.c.result.ok}", "equals": True},
                        "from": "b",
                        "at_most": 2,
                    },
                },
            ]
        }
    )

    assert told_of(plan) == {("a", None), ("b", None), ("c", None)}
