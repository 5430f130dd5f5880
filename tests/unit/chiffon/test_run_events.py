"""How a run stands after an event, as a client that follows it sees it."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from chiffon.models import Event, Run
from chiffon.runs import after_event, needs_the_ledger
from tests.unit.chiffon.fake_runs import NOTHING, TIMES, make_step

RUN, TASK, OTHER = uuid4(), uuid4(), uuid4()
AT = datetime(2026, 11, 30, 10, tzinfo=UTC)


def make_run(*steps: dict[str, Any]) -> Run:
    ids = {"run_id": RUN, "request_id": uuid4(), "trace_id": uuid4(), "name": "nightly", "requested_by": "ann"}
    return Run.model_validate(
        {**ids, "status": "running", **TIMES, **NOTHING, "plan": {}, "inputs": {}, "steps": list(steps)}
    )


def make_event(what: str, task_id: UUID | None = None, /, *, attempt: int = 1, **data: Any) -> Event:
    about = {"task_id": task_id, "trace_id": None, "request_id": None, "agent_id": OTHER, "attempt": attempt}
    return Event.model_validate({"seq": 1, "at": AT, "kind": what, "actor": "orchestrator", "data": data, **about})


def begun(number: int, *, run_id: UUID = RUN, kind: str = "step", **data: Any) -> Event:
    known: dict[str, Any] = {
        "run_id": str(run_id),
        "step": "build",
        "kind": kind,
        "number": number,
        "status": "pending",
    }
    return make_event("run.step", TASK, **known, task_id=str(TASK), **data)


def test_a_step_that_begins_has_its_task() -> None:
    run = after_event(make_run(make_step("build"), make_step("test")), begun(1))

    assert run is not None
    assert [(step.number, step.task_id) for step in run.steps] == [(1, TASK), (0, None)]


def test_a_step_whose_row_the_ledger_showed_before_its_task_gets_it_from_its_event() -> None:
    seen = make_run(make_step("build", "pending", number=2, task_id=None))

    run = after_event(seen, begun(2))

    assert run is not None
    assert (run.steps[0].number, run.steps[0].task_id) == (2, TASK)
    assert after_event(run, begun(2)) is None
    assert after_event(make_run(make_step("build", "failed", number=2, task_id=None)), begun(2)) is None


@pytest.mark.parametrize("number", [1, 2])
def test_a_beginning_that_is_known_or_older_changes_nothing(number: int) -> None:
    assert after_event(make_run(make_step("build", "running", number=2)), begun(number)) is None


def test_what_happens_to_other_runs_of_the_trace_changes_nothing() -> None:
    run = make_run(make_step("build", "running", task_id=str(TASK)))

    assert after_event(run, begun(2, run_id=OTHER)) is None
    assert after_event(run, make_event("task.claimed", OTHER)) is None
    assert not needs_the_ledger(run, make_event("task.completed", OTHER))
    assert not needs_the_ledger(run, make_event("run.status", run_id=str(OTHER), status="failed"))


def test_a_claim_has_the_step_run_and_takes_nothing_back() -> None:
    waiting = make_run(make_step("build", "awaiting_approval", task_id=str(TASK)))
    over = make_run(make_step("build", "failed", task_id=str(TASK)))

    run = after_event(waiting, make_event("task.claimed", TASK))

    assert run is not None
    assert (run.steps[0].status, run.steps[0].agent_id, run.steps[0].started_at) == ("running", OTHER, AT)
    assert after_event(over, make_event("task.claimed", TASK)) is None


def test_an_agent_has_the_name_that_another_step_knows() -> None:
    claim = make_event("task.claimed", TASK)
    alone = make_run(make_step("build", "pending", task_id=str(TASK)))
    known = make_run(
        make_step("build", "pending", task_id=str(TASK)), make_step("test", agent_id=str(OTHER), agent_name="infra-1")
    )

    first, second = after_event(alone, claim), after_event(known, claim)

    assert first is not None
    assert second is not None
    assert [first.steps[0].agent_name, second.steps[0].agent_name] == [None, "infra-1"]


def test_inner_steps_come_in_their_order_and_what_is_final_stays() -> None:
    run: Run | None = make_run(make_step("build", "running", task_id=str(TASK)))
    for position, name, status in ((1, "patch", "in_progress"), (0, "analyze", "succeeded"), (1, "patch", "failed")):
        assert run is not None
        run = after_event(run, make_event("task.step", TASK, position=position, name=name, status=status, message=""))

    assert run is not None
    assert [(inner.name, inner.status) for inner in run.steps[0].inner] == [
        ("analyze", "succeeded"),
        ("patch", "failed"),
    ]
    late = make_event("task.step", TASK, position=1, name="patch", status="in_progress", message="")
    assert after_event(run, late) is None


def test_a_new_attempt_begins_without_inner_steps_and_progress() -> None:
    inner = [{"position": 0, "name": "analyze", "status": "succeeded"}]
    run = make_run(make_step("build", "running", task_id=str(TASK), attempt=1, inner=inner, progress="half"))

    again = after_event(run, make_event("task.claimed", TASK, attempt=2))
    same = after_event(run, make_event("task.claimed", TASK, attempt=1))

    assert again is not None
    assert same is not None
    assert (again.steps[0].inner, again.steps[0].progress) == ([], "")
    assert [one.name for one in same.steps[0].inner] == ["analyze"]


def test_progress_is_that_of_its_step() -> None:
    run = after_event(
        make_run(make_step("build", "running", task_id=str(TASK))), make_event("task.progress", TASK, progress="40%")
    )

    assert run is not None
    assert run.steps[0].progress == "40%"


@pytest.mark.parametrize(
    ("event", "asks"),
    [
        (make_event("task.completed", TASK), True),
        (make_event("task.failed", TASK), True),
        (make_event("task.cancelled", TASK), True),
        (make_event("task.requeued", TASK), True),
        (make_event("approval.requested", TASK), True),
        (make_event("run.status", run_id=str(RUN), status="running"), True),
        (begun(1), False),
        (begun(2), True),
        (begun(2, problem="no such value"), True),
        (begun(1, kind="undo"), True),
        (make_event("task.step", TASK, name="rollback", status="skipped"), True),
        (make_event("task.step", TASK, name="rollback", status="in_progress"), False),
        (make_event("task.step", TASK, name="build", status="failed"), False),
        (make_event("task.claimed", TASK), False),
        (make_event("task.output", TASK), False),
    ],
)
def test_the_ledger_is_asked_for_what_an_event_leaves_out(event: Event, asks: bool) -> None:
    run = make_run(make_step("build", "running", task_id=str(TASK)))

    assert needs_the_ledger(run, event) is asks
