"""What a run does next, whatever becomes of its tasks."""

import time
from typing import Any

import pytest

from common.plans.check import check
from common.plans.read import plan_of
from common.plans.status import RunStatus
from common.rest.runs import RunStepStatus
from orchestrator.runs.rules import Refuse, Standing, Start, StepState
from tests.unit.common.plans.plans import make_plan, step
from tests.unit.orchestrator.run_driver import REVERT, STEP, UNDO, RunDriver, make_run, until


def test_steps_run_one_after_another() -> None:
    run = RunDriver(make_plan(step("a"), step("b")))

    first = run.look()
    assert first.starts == [Start("a", STEP, {}, 1)]
    assert (first.status, first.is_over, first.ending) == (RunStatus.PENDING, False, None)
    assert run.go().status is RunStatus.PENDING
    assert run.set("a", "running").status is RunStatus.RUNNING
    assert run.open() == ["a"]
    assert run.finish("a").status is RunStatus.RUNNING
    assert run.open() == ["b"]
    move = run.finish("b")

    assert (move.status, move.is_over, move.ending, move.error_message) == (RunStatus.SUCCEEDED, True, None, None)
    assert move.standings == {"a": Standing(RunStepStatus.SUCCEEDED), "b": Standing(RunStepStatus.SUCCEEDED)}


def test_steps_that_need_nothing_of_each_other_run_together() -> None:
    run = make_run(step("a"), step("b", needs=[]), step("c", needs=["a", "b"]))

    assert run.open() == ["a", "b"]
    run.finish("b")
    assert run.open() == ["a"]
    run.finish("a")
    assert run.open() == ["c"]


def test_a_step_gets_the_values_of_its_references() -> None:
    run = make_run(
        step("a", parameters={"x": "${inputs.stage} in ${run.name}", "count": "${inputs.count}", "id": "${run.id}"}),
        step(
            "b",
            parameters={"image": "${steps.a.result.image}", "text": "$${x} ${steps.a.output}", "n": "${steps.a.round}"},
            hints={"agent_id": "${steps.a.result.agent}", "required_capabilities": ["docker"]},
        ),
        plan_inputs={"stage": "test", "count": 1},
        stage="prod",
    )
    agent = "11111111-2222-4333-8444-555555555555"
    run.finish("a", result={"image": "web:2", "agent": agent}, output="done")

    assert run.started == [
        Start("a", STEP, {"x": "prod in nightly", "count": 1, "id": "3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11"}, 1),
        Start(
            "b",
            STEP,
            {"image": "web:2", "text": "${x} done", "n": 1},
            1,
            {"agent_id": agent, "required_capabilities": {"docker": True}},
        ),
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"parameters": {"x": ["${steps.a.result.image}"]}},
            "parameters.x[0]: ${steps.a.result.image} has no value; with a '?' before its '}' it may have none",
        ),
        ({"hints": {"agent_id": "${steps.a.output}"}}, "hints.agent_id: Input should be a valid UUID"),
        ({"when": {"value": "${steps.a.result}", "equals": 1}}, "when.value: ${steps.a.result} has no value"),
    ],
)
def test_a_step_that_cannot_begin_has_failed(fields: dict[str, Any], problem: str) -> None:
    run = make_run(step("a", undo=REVERT), step("b", **fields), step("c"))

    run.finish("a", output="no id")

    refused = run.started[1]
    assert isinstance(refused, Refuse)
    assert (refused.step, refused.kind, refused.number) == ("b", STEP, 1)
    assert refused.problem.startswith(problem)
    assert run.open() == ["undo a"]
    move = run.finish("a", kind=UNDO)
    assert move.status is RunStatus.ROLLED_BACK
    assert move.error_message == f"b failed: {refused.problem}"


def test_after_a_failure_only_what_is_for_failures_begins() -> None:
    run = make_run(
        step("a"),
        step("b"),
        step("c"),
        step("sorry", when="failed"),
        step("tidy", when="always"),
        step("other", needs=[]),
        step("more", needs=["other"]),
    )

    run.finish("a")
    run.finish("b", "failed", error="no disk")
    assert run.open() == ["other", "sorry"]
    run.finish("other")
    assert run.open() == ["sorry"]
    run.finish("sorry")
    assert run.open() == ["tidy"]
    move = run.finish("tidy")

    assert (move.status, move.is_over, move.ending) == (RunStatus.FAILED, True, "failed")
    assert move.error_message == "b failed: no disk"
    assert move.standings["c"] == Standing(RunStepStatus.SKIPPED, "an earlier step failed", breaks=True)
    assert move.standings["more"] == Standing(RunStepStatus.SKIPPED, "an earlier step failed")


def test_the_run_names_the_step_that_failed_first() -> None:
    run = make_run(step("a"), step("b", needs=[]), step("c", needs=[]))

    run.finish("c", "succeeded")
    run.finish("b", "cancelled")
    move = run.finish("a", "failed", error="late")

    assert move.error_message == "b was cancelled"


GOOD, LOST, TOLERATED, GONE, SKIPPED = "succeeded", "failed", "tolerated", "cancelled", "skipped"


@pytest.mark.parametrize(
    ("when", "beginning"),
    [
        ("succeeded", {(GOOD, GOOD), (GOOD, TOLERATED), (TOLERATED, TOLERATED)}),
        (
            "failed",
            {
                (one, other)
                for one in (GOOD, LOST, TOLERATED, GONE, SKIPPED)
                for other in (GOOD, LOST, TOLERATED, GONE, SKIPPED)
                if {one, other} & {LOST, TOLERATED, GONE}
            },
        ),
        (
            "not_failed",
            {(one, other) for one in (GOOD, TOLERATED, SKIPPED) for other in (GOOD, TOLERATED, SKIPPED)},
        ),
        (
            "always",
            {
                (one, other)
                for one in (GOOD, LOST, TOLERATED, GONE, SKIPPED)
                for other in (GOOD, LOST, TOLERATED, GONE, SKIPPED)
            },
        ),
        ({"value": "${run.name}", "equals": "nightly"}, {(GOOD, GOOD), (GOOD, TOLERATED), (TOLERATED, TOLERATED)}),
        ({"value": "${run.name}", "not_equals": "nightly"}, set()),
    ],
    ids=["succeeded", "failed", "not_failed", "always", "a condition", "another condition"],
)
@pytest.mark.parametrize("one", [GOOD, LOST, TOLERATED, GONE, SKIPPED])
@pytest.mark.parametrize("other", [GOOD, LOST, TOLERATED, GONE, SKIPPED])
def test_a_step_begins_when_what_it_needs_ended_so(
    when: Any, beginning: set[tuple[str, str]], one: str, other: str
) -> None:
    def need(name: str, end: str) -> dict[str, Any]:
        never = {"when": {"value": 1, "equals": 2}} if end == SKIPPED else {}
        return step(name, needs=[], may_fail=end == TOLERATED, **never)

    run = make_run(need("one", one), need("other", other), step("last", needs=["one", "other"], when=when))
    for name, end in (("one", one), ("other", other)):
        if end != SKIPPED:
            run.finish(name, LOST if end == TOLERATED else end)

    assert (run.open() == ["last"]) is ((one, other) in beginning or (other, one) in beginning)


def test_a_failure_is_seen_behind_what_was_skipped_for_it_and_not_behind_what_it_was_forgiven() -> None:
    run = make_run(step("a"), step("b"), step("c"), step("sorry", when="failed"))
    run.finish("a", "failed")
    assert run.open() == ["sorry"]

    forgiven = make_run(
        step("a", may_fail=True), step("b", when={"value": 1, "equals": 2}), step("sorry", when="failed")
    )
    move = forgiven.finish("a", "failed")

    assert move.status is RunStatus.SUCCEEDED
    assert move.standings["b"].problem == "its condition does not hold"
    assert move.standings["sorry"].problem == "nothing that it needs has failed"


def test_ways_that_part_can_join_again() -> None:
    approve = {"value": "${steps.ask.result.answer}", "equals": "yes"}
    reject = {"value": "${steps.ask.result.answer}", "not_equals": "yes"}
    run = make_run(
        step("ask"),
        step("publish", when=approve),
        step("explain", needs=["ask"], when=reject),
        step("tell", needs=["publish", "explain"], when="not_failed", parameters={"x": "${steps.explain.status}"}),
        step("strict", needs=["publish", "explain"]),
    )

    run.finish("ask", result={"answer": "yes"})
    assert run.open() == ["publish"]
    run.finish("publish")

    assert run.open() == ["tell"]
    assert run.started[-1] == Start("tell", STEP, {"x": "skipped"}, 1)
    move = run.finish("tell")
    assert move.status is RunStatus.SUCCEEDED
    assert move.standings["strict"] == Standing(RunStepStatus.SKIPPED, "a step that it needs was skipped")


def test_a_run_waits_for_an_approval_when_nothing_else_is_open() -> None:
    run = make_run(step("a"), step("b", needs=[]), step("c", needs=["a"]))

    assert run.set("a", "awaiting_approval").status is RunStatus.PENDING
    assert run.set("b", "running").status is RunStatus.RUNNING
    assert run.finish("b").status is RunStatus.AWAITING_APPROVAL
    assert run.set("a", "pending").status is RunStatus.RUNNING
    run.finish("a")
    assert run.set("c", "awaiting_approval").status is RunStatus.AWAITING_APPROVAL

    first = make_run(step("a"))
    assert first.set("a", "awaiting_approval").status is RunStatus.AWAITING_APPROVAL
    assert first.set("a", "pending").status is RunStatus.PENDING


SHAPES = {
    "chain": [step(f"s{number}", undo=REVERT, parameters={"x": "${run.id} ${inputs.a}"}) for number in range(500)],
    "wide": [step(f"s{number}", needs=[], parameters={"x": "${run.id} ${inputs.a}"}) for number in range(500)],
    "loop": [step("s0"), *(step(f"s{n}") for n in range(1, 499)), step("s499", repeat=until("s499", 20, "s0"))],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_five_hundred_steps_are_looked_at_in_no_time(shape: str) -> None:
    run = RunDriver(plan_of({"inputs": {"a": 1}, "steps": SHAPES[shape]}))
    check(run.plan)
    rounds = {"chain": 1, "wide": 0, "loop": 19}[shape]
    for name in (f"s{number}" for number in range(500 if rounds else 0)):
        rows = [StepState(number, RunStepStatus.SUCCEEDED, result={}) for number in range(1, rounds + 1)]
        run.earlier[name, STEP], run.states[name, STEP] = rows[:-1], rows[-1]
    begun = time.process_time()

    for _ in range(10):
        run.look()

    # Ten times; a look takes some milliseconds.
    assert time.process_time() - begun < 2
