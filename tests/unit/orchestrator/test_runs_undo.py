"""How a run that fails or is cancelled takes back what it did, and how it is tried again."""

import pytest

from common.compose import COMPOSE_REPAIR
from common.errors import InvalidField
from common.plans.status import RunStatus
from common.rest.runs import RunStepStatus
from orchestrator.runs.rules import Standing, Start
from tests.unit.common.plans.plans import make_plan, step
from tests.unit.orchestrator.run_driver import REVERT, STEP, UNDO, RunDriver, make_run, until

OF_TASK = {"task": "${steps.a.task_id}"}
RESUMES = {"resumes": "${steps.prepare.task_id}", "diff": "${steps.prepare.result.diff?}"}


def test_what_succeeded_is_undone_in_the_reverse_order_of_its_ends_one_at_a_time() -> None:
    run = make_run(
        step("a", needs=[], undo={"work_type": "own", "parameters": {"was": "${steps.a.result.before}"}}),
        step("b", needs=[], undo={"work_type": "own", "hints": {"agent_type": "infra"}}),
        step("c", needs=[], undo=REVERT),
        step("plain", needs=[]),
        step("d", needs=["a", "b", "plain"], undo=REVERT),
    )
    run.finish("b")
    run.finish("plain")
    run.finish("a", result={"before": 7})
    run.finish("d", "failed", error="broken")
    assert run.open() == ["c"]

    run.finish("c")
    assert run.open() == ["undo c"]
    assert run.look().ending == "failed"
    run.finish("c", kind=UNDO)
    assert run.open() == ["undo a"]
    assert run.started[-1] == Start("a", UNDO, {"was": 7}, 1)
    run.finish("a", kind=UNDO)
    assert run.started[-1] == Start("b", UNDO, {}, 1, {"agent_type": "infra"})
    assert run.set("b", "running", UNDO).status is RunStatus.RUNNING
    move = run.finish("b", kind=UNDO)

    assert (move.status, move.is_over, move.ending) == (RunStatus.ROLLED_BACK, True, "failed")
    assert move.error_message == "d failed: broken"


@pytest.mark.parametrize("end", ["failed", "cancelled", "refused"])
def test_an_undo_that_fails_stops_no_other(end: str) -> None:
    parameters = {"was": "${steps.b.result.before}"} if end == "refused" else {}
    run = make_run(step("a", undo=REVERT), step("b", undo={**REVERT, "parameters": parameters}), step("c"))
    run.finish("a")
    run.finish("b")

    run.finish("c", "failed", error="It broke.")
    if end != "refused":
        run.finish("b", end, UNDO)
    assert run.open() == ["undo a"]
    move = run.finish("a", kind=UNDO)

    assert move.status is RunStatus.FAILED
    assert move.error_message == "c failed: It broke; could not be undone: b"


def test_without_anything_to_undo_a_run_has_failed() -> None:
    run = make_run(step("a", undo=REVERT))

    assert run.finish("a", "failed").status is RunStatus.FAILED


@pytest.mark.parametrize(("undone", "status"), [(True, "rolled_back"), (False, "failed"), (None, "failed")])
def test_what_a_host_took_back_by_itself_counts(undone: bool | None, status: str) -> None:
    run = make_run(step("repair"))

    assert run.finish("repair", "failed", undone=undone).status == status


def test_a_round_that_succeeded_is_undone_when_a_later_one_fails() -> None:
    run = make_run(
        step("change", undo={"work_type": "own", "parameters": {"was": "${steps.change.result.before}"}}),
        step("look", repeat=until("look", 3, "change")),
    )
    run.finish("change", result={"before": "v1"})
    run.finish("look", result={"ok": False})

    run.finish("change", "failed")

    assert run.started[-1] == Start("change", UNDO, {"was": "v1"}, 1)


def test_a_run_that_is_cancelled_begins_nothing_and_undoes_what_it_did() -> None:
    run = make_run(step("a", undo=REVERT), step("b"), step("tidy", when="always"))
    run.finish("a")
    run.cancelled = True

    move = run.go()
    assert (move.status, move.is_over, move.ending) == (RunStatus.RUNNING, False, None)
    assert run.open() == ["b"]
    assert move.standings["tidy"] == Standing(RunStepStatus.SKIPPED, "the run ended before it began")
    move = run.finish("b", "cancelled")
    assert run.open() == ["undo a"]
    assert move.ending == "cancelled"
    move = run.finish("a", kind=UNDO)

    assert (move.status, move.is_over) == (RunStatus.CANCELLED, True)


def test_a_run_can_be_cancelled_before_it_begins_and_while_it_undoes() -> None:
    early = RunDriver(make_plan(step("a")))
    early.cancelled = True
    assert early.go().status is RunStatus.CANCELLED
    assert not early.started

    late = make_run(step("a", undo=REVERT), step("b"))
    late.finish("a")
    late.finish("b", "failed")
    late.cancelled = True
    assert late.finish("a", kind=UNDO).status is RunStatus.ROLLED_BACK


def test_a_retry_begins_with_what_failed_and_keeps_what_succeeded() -> None:
    run = make_run(step("a"), step("b"), step("c"), step("aside", needs=["a"]))
    run.finish("a")
    run.finish("aside")
    run.finish("b", "failed")

    assert run.retry() == ["b", "c"]
    run.go()
    assert run.started[-1] == Start("b", STEP, {}, 2)
    run.finish("b")
    assert run.finish("c").status is RunStatus.SUCCEEDED


def test_a_retry_from_a_step_begins_with_it_and_with_whatever_waits_for_it() -> None:
    run = make_run(step("a"), step("b"), step("c", needs=["a"]), step("d", needs=["b"]))
    run.finish("a")
    run.finish("c", "failed")
    run.finish("b", "failed")

    assert run.retry("b") == ["b", "c", "d"]
    with pytest.raises(InvalidField, match=r"^from_step: 'x' is no step of this plan; it has: a, b, "):
        run.retry("x")


@pytest.mark.parametrize("from_step", [None, "deploy"])
@pytest.mark.parametrize(
    ("status", "undone", "again"),
    [
        ("failed", True, ["prepare", "deploy"]),
        ("failed", False, ["prepare", "deploy"]),
        ("failed", None, ["prepare", "deploy"]),
        ("cancelled", True, ["prepare", "deploy"]),
        ("cancelled", None, ["deploy"]),
    ],
)
def test_what_a_host_has_prepared_is_prepared_anew_once_the_host_has_gone_on_with_it(
    status: str, undone: bool | None, again: list[str], from_step: str | None
) -> None:
    run = make_run(
        step("prepare", work_type=COMPOSE_REPAIR), step("deploy", work_type=COMPOSE_REPAIR, parameters=RESUMES)
    )
    run.finish("prepare")
    run.finish("deploy", status, undone=undone)

    assert run.retry(from_step) == again


def test_what_is_named_in_a_retry_by_its_task_or_is_no_repair_is_kept() -> None:
    for parameters, work_type in (({"diff": "${steps.a.result.diff?}"}, COMPOSE_REPAIR), (OF_TASK, "own")):
        run = make_run(step("a"), step("b", work_type=work_type, parameters=parameters))
        run.finish("a")
        run.finish("b", "failed", undone=True)

        assert run.retry() == ["b"]


@pytest.mark.parametrize("from_step", [None, "c"])
def test_what_was_undone_is_done_again_and_so_is_what_could_not_be_undone(from_step: str | None) -> None:
    run = make_run(step("a", undo=REVERT), step("b", undo=REVERT), step("c"), step("aside", needs=[]))
    run.finish("aside")
    run.finish("a")
    run.finish("b")
    run.finish("c", "failed")
    run.finish("b", kind=UNDO)
    assert run.finish("a", "failed", UNDO).status is RunStatus.FAILED

    assert run.retry(from_step) == ["a", "b", "c"]
    run.go()
    assert run.started[-1] == Start("a", STEP, {}, 2)
    run.finish("a", "failed")

    # The first b is undone already; the first a is not, and its undo is tried again.
    assert run.started[-1] == Start("a", UNDO, {}, 2)
    assert run.finish("a", kind=UNDO).status is RunStatus.ROLLED_BACK


def test_what_was_undone_and_done_again_is_undone_again() -> None:
    run = make_run(step("a", undo=REVERT), step("b"))
    run.finish("a")
    run.finish("b", "failed")
    run.finish("a", kind=UNDO)
    assert run.retry() == ["a", "b"]
    run.go()
    run.finish("a")

    run.finish("b", "failed")

    assert run.started[-1] == Start("a", UNDO, {}, 2)
    assert run.finish("a", kind=UNDO).status is RunStatus.ROLLED_BACK


def test_a_retry_of_a_loop_at_its_end_goes_on_from_where_it_begins() -> None:
    run = make_run(
        step("write", parameters={"comment": "${steps.review.result.comment?}"}),
        step("review", repeat=until("review", 1, "write")),
        step("end"),
    )
    run.finish("write")
    assert run.finish("review", result={"comment": "no"}).status is RunStatus.FAILED

    assert run.retry() == ["write", "review", "end"]
    run.go()
    assert run.started[-1] == Start("write", STEP, {"comment": "no"}, 2)
    run.finish("write")
    run.finish("review", result={"ok": True})
    assert run.open() == ["end"]


def test_a_retry_begins_a_loop_with_all_its_rounds() -> None:
    run = make_run(step("build"), step("poll", repeat=until("poll", 3)), step("deploy"))
    run.finish("build")
    run.finish("poll", result={"ok": False})
    run.finish("poll", result={"ok": True})
    assert run.finish("deploy", "failed").status is RunStatus.FAILED

    run.retry("build")
    run.go()
    run.finish("build")
    for ok in (False, False, True):
        assert run.open() == ["poll"]
        run.finish("poll", result={"ok": ok})

    assert run.open() == ["deploy"]


def test_a_loop_that_is_kept_by_a_retry_is_as_far_as_it_was() -> None:
    at_its_end = make_run(step("poll", may_fail=True, repeat=until("poll", 2)), step("end"))
    at_its_end.finish("poll", result={"ok": False})
    at_its_end.finish("poll", result={"ok": False})
    at_its_end.finish("end", "failed")
    halfway = make_run(step("poll", needs=[], repeat=until("poll", 2)), step("aside", needs=[]))
    halfway.finish("aside", "failed")
    halfway.finish("poll", result={"ok": False})

    assert (at_its_end.retry(), halfway.retry()) == (["end"], ["aside"])
    at_its_end.go()
    halfway.go()

    assert at_its_end.open() == ["end"]
    assert sorted(halfway.open()) == ["aside", "poll"]


def test_a_run_that_is_tried_again_runs_once_something_of_this_try_has_begun() -> None:
    run = make_run(step("a"), step("b"))
    run.finish("a")
    run.finish("b", "failed")

    run.retry()

    assert run.look().status is RunStatus.PENDING
    assert run.go().status is RunStatus.PENDING
    assert run.set("b", "awaiting_approval").status is RunStatus.AWAITING_APPROVAL
    assert run.set("b", "pending").status is RunStatus.PENDING
    assert run.set("b", "running").status is RunStatus.RUNNING


@pytest.mark.parametrize("from_step", [None, "deploy"])
def test_what_was_left_running_when_a_run_was_abandoned_is_begun_anew(from_step: str | None) -> None:
    run = make_run(
        step("prepare", work_type=COMPOSE_REPAIR),
        step("deploy", work_type=COMPOSE_REPAIR, parameters=RESUMES),
        step("end"),
    )
    run.finish("prepare")
    run.set("deploy", "running")

    assert run.retry(from_step) == ["prepare", "deploy", "end"]


def test_a_try_that_failed_is_no_round() -> None:
    run = make_run(step("a", repeat=until("a", 2)))
    run.finish("a", "failed")
    run.retry()
    run.go()

    run.finish("a", result={"ok": False})
    assert run.open() == ["a"]
    assert run.finish("a", result={"ok": False}).status is RunStatus.FAILED


def test_a_retry_of_a_cancelled_run_begins_what_was_stopped() -> None:
    run = make_run(step("a"), step("b", may_fail=True), step("c"))
    run.finish("a")
    run.cancelled = True
    assert run.finish("b", "cancelled").status is RunStatus.CANCELLED

    assert run.retry() == ["b", "c"]
    run.go()
    assert run.open() == ["b"]
