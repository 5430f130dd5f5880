"""Loops of a run: another round, with what came of the one before, as long as rounds are left."""

from datetime import timedelta

import pytest

from common.plans.status import RunStatus
from common.rest.runs import RunStepStatus
from orchestrator.runs.rules import Again, Standing, Start
from tests.unit.common.plans.plans import step
from tests.unit.orchestrator.run_driver import REVERT, STEP, UNDO, RunDriver, make_run, until


def test_a_review_sends_its_text_back_with_a_comment() -> None:
    run = make_run(
        step("write", parameters={"comment": "${steps.review.result.comment?}", "last": "${steps.write.output?}"}),
        step("review", parameters={"text": "${steps.write.output}"}, repeat=until("review", 3, "write")),
        step("publish", parameters={"text": "${steps.write.output}", "rounds": "${steps.review.round}"}),
    )

    run.finish("write", output="draft")
    move = run.look()
    assert move.again is None
    run.end(("review", STEP), RunStepStatus.SUCCEEDED, result={"ok": False, "comment": "too short"})
    move = run.look()

    assert move.again == Again(("write", "review"))
    assert move.starts == [Start("write", STEP, {"comment": "too short", "last": "draft"}, 2)]
    assert move.status is RunStatus.RUNNING
    run.go()
    run.finish("write", output="longer")
    assert run.started[-1] == Start("review", STEP, {"text": "longer"}, 2)
    run.finish("review", result={"ok": True})
    assert run.started[-1] == Start("publish", STEP, {"text": "longer", "rounds": 2}, 1)
    assert run.finish("publish").status is RunStatus.SUCCEEDED


def pauses(run: RunDriver) -> list[tuple[str, float]]:
    """Return the steps that have begun, each with the seconds for which it waits first."""
    return [(start.step, start.pause.total_seconds()) for start in run.started if isinstance(start, Start)]


def test_the_first_step_of_each_further_round_waits() -> None:
    run = make_run(step("a"), step("b"), step("c", repeat=until("c", 3, "b", every_seconds=2.5)), step("d"))
    run.finish("a")
    for is_ok in (False, True):
        run.finish("b")
        run.finish("c", result={"ok": is_ok})

    assert pauses(run) == [("a", 0), ("b", 0), ("c", 0), ("b", 2.5), ("c", 0), ("d", 0)]


def test_a_loop_of_one_step_waits_before_each_round_but_the_first() -> None:
    run = make_run(step("ask", repeat=until("ask", 3, every_seconds=60)))

    for _ in range(3):
        run.finish("ask")

    assert pauses(run) == [("ask", 0), ("ask", 60), ("ask", 60)]


def test_of_two_loops_that_begin_with_one_step_the_one_that_goes_round_says_how_long_it_waits() -> None:
    inner, outer = until("inner", 3, "first", every_seconds=1), until("outer", 3, "first", every_seconds=100)
    run = make_run(step("first"), step("inner", repeat=inner), step("outer", repeat=outer))

    for _ in range(2):
        run.finish("first")
        run.finish("inner", result={"ok": False})
        run.finish("first")
        run.finish("inner", result={"ok": True})
        run.finish("outer", result={"ok": False})

    assert [pause for name, pause in pauses(run) if name == "first"] == [0, 1, 100, 1, 100]


def test_a_retry_begins_its_loop_without_a_pause() -> None:
    run = make_run(step("ask", repeat=until("ask", 3, every_seconds=60)))
    run.finish("ask")
    run.finish("ask", "failed")

    run.retry()
    run.go()
    run.finish("ask")

    assert pauses(run) == [("ask", 0), ("ask", 60), ("ask", 0), ("ask", 60)]


def test_a_step_that_began_before_a_crash_waits_as_it_would_have() -> None:
    run = make_run(step("ask", repeat=until("ask", 3, every_seconds=60)))
    assert run.history.pause_before("ask") == timedelta(0)

    run.finish("ask")

    assert run.history.pause_before("ask") == timedelta(minutes=1)


@pytest.mark.parametrize("may_fail", [False, True])
def test_a_loop_that_never_comes_to_its_end_has_failed(may_fail: bool) -> None:
    run = make_run(
        step("write", undo=REVERT), step("review", may_fail=may_fail, repeat=until("review", 2, "write")), step("end")
    )

    for _ in range(2):
        assert run.open() == ["write"]
        run.finish("write")
        run.finish("review", result={"ok": False})

    said = "the condition of its loop does not hold after round 2"
    assert run.look().standings["review"] == Standing(RunStepStatus.FAILED, said, breaks=not may_fail)
    if may_fail:
        assert run.open() == ["end"]
        assert run.finish("end").status is RunStatus.SUCCEEDED
    else:
        assert run.open() == ["undo write"]
        assert run.finish("write", kind=UNDO).error_message == f"review failed: {said}"


def test_a_condition_that_cannot_be_looked_at_fails_its_loop() -> None:
    condition = {"value": "${steps.review.result.ok}", "equals": True}
    run = make_run(step("review", repeat={"until": condition, "at_most": 5}))

    move = run.finish("review", result={"answer": "fine"})

    assert move.status is RunStatus.FAILED
    assert move.error_message is not None
    assert move.error_message.startswith("review failed: repeat.until.value: ${steps.review.result.ok} has no value")


def test_a_step_that_fails_is_not_repeated_unless_it_may_fail() -> None:
    condition = {"value": "${steps.try.status}", "equals": "succeeded"}
    strict = make_run(step("try", repeat={"until": condition, "at_most": 5}))
    assert strict.finish("try", "failed").status is RunStatus.FAILED

    run = make_run(step("try", may_fail=True, repeat={"until": condition, "at_most": 5}), step("end"))
    run.finish("try", "failed")
    run.finish("try", "cancelled", error="a person said no")
    assert run.open() == ["try"]
    run.finish("try")

    assert run.open() == ["end"]
    assert [start.number for start in run.started] == [1, 2, 3, 1]


def test_a_loop_in_a_loop_has_all_its_rounds_in_each_round_of_the_outer_one() -> None:
    run = make_run(
        step("a"), step("inner", repeat=until("inner", 2, "a")), step("outer", repeat=until("outer", 2, "a"))
    )

    for outer in (False, True):
        for inner in (False, True):
            run.finish("a")
            run.finish("inner", result={"ok": inner})
        move = run.finish("outer", result={"ok": outer})

    assert move.status is RunStatus.SUCCEEDED
    assert [(start.step, start.number) for start in run.started] == [
        *(("a", 1), ("inner", 1), ("a", 2), ("inner", 2), ("outer", 1)),
        *(("a", 3), ("inner", 3), ("a", 4), ("inner", 4), ("outer", 2)),
    ]


def test_what_is_outside_a_loop_waits_for_its_last_round() -> None:
    run = make_run(
        step("a"),
        step("b", repeat=until("b", 3, "a")),
        step("aside", needs=["a"], parameters={"x": "${steps.a.result.x}"}),
    )

    for ok in (False, True):
        run.finish("a", result={"x": ok})
        assert run.open() == ["b"]
        run.finish("b", result={"ok": ok})

    assert run.open() == ["aside"]
    assert run.started[-1] == Start("aside", STEP, {"x": True}, 1)


def test_a_step_that_is_skipped_in_this_round_does_not_stand_for_the_one_before() -> None:
    run = make_run(
        step("a"),
        step("fix", when={"value": "${steps.a.result.broken}", "equals": True}),
        step("b", when="always", parameters={"x": "${steps.fix.status}"}, repeat=until("b", 3, "a")),
    )

    run.finish("a", result={"broken": True})
    run.finish("fix")
    assert run.started[-1] == Start("b", STEP, {"x": "succeeded"}, 1)
    run.finish("b", result={"ok": False})
    run.finish("a", result={"broken": False})

    assert run.started[-1] == Start("b", STEP, {"x": "skipped"}, 2)


@pytest.mark.parametrize("why", ["a failure", "a cancel"])
def test_no_loop_goes_round_in_a_run_that_ends(why: str) -> None:
    run = make_run(step("a", repeat=until("a")), step("b", needs=[]))
    if why == "a cancel":
        run.cancelled = True
        run.finish("b", "cancelled")
    else:
        run.finish("b", "failed")

    move = run.finish("a", result={"ok": False})

    assert move.is_over
    assert len(run.started) == 2
    assert move.standings["a"].status is RunStepStatus.SUCCEEDED
