"""Every plan that cannot be run is refused with one sentence that names the place."""

import time
from typing import Any

import pytest

from common.errors import InvalidField
from common.plans.check import MAX_PLAN_BYTES, check
from common.plans.model import MOST_STEPS
from common.plans.order import order_of
from common.plans.read import plan_of
from tests.unit.common.plans.plans import make_plan, refused, step

NEVER = {"value": "${run.id}", "equals": "never"}


def loop(name: str, begin: str | None = None, at_most: int = 2, **fields: Any) -> dict[str, Any]:
    return step(name, repeat={"until": NEVER, "at_most": at_most, "from": begin}, **fields)


def test_a_plan_of_every_kind_of_step_is_one() -> None:
    check(
        make_plan(
            step(
                "write", parameters={"a": "${inputs.topic}", "b": "${steps.review.result.comment?}", "c": "${run.name}"}
            ),
            loop("review", "write", parameters={"file": "${steps.write.artifacts.text.md}"}),
            step(
                "publish",
                when={"value": "${steps.review.result.ok?}", "equals": True},
                undo={
                    "work_type": "own",
                    "parameters": {"a": "${steps.publish.result}", "b": "${steps.write.result}"},
                },
            ),
            step("after", when="not_failed", hints={"agent_id": "${steps.write.result.agent}", "agent_type": "infra"}),
            step("sorry", when="failed", needs=["write", "publish"]),
            step(
                "tidy",
                when="always",
                needs=["sorry", "write"],
                ordering_key="a",
                concurrency_key="b",
                concurrency_limit=1,
            ),
            inputs={"topic": "x", "unused": 1},
        ),
        {"topic": "y"},
    )


@pytest.mark.parametrize(
    ("steps", "field", "problem"),
    [
        ([step("a"), step("b"), step("a")], "steps[2].name", "'a' is the name of an earlier step, too"),
        ([step("a", needs=["b"])], "steps[0].needs[0]", "'b' is no step of this plan"),
        ([step("a"), step("b", needs=["a", "c"]), step("b")], "steps[1].needs[1]", "'c' is no step of this plan"),
        (
            [step("a", needs=["a"])],
            "steps[0].needs",
            ("a → a is a circle: each waits for the one behind it, so none of them could begin"),
        ),
        ([step("a", needs=["b"]), step("b")], "steps[0].needs", "a → b → a is a circle"),
        (
            [step("x"), step("c", needs=["a"]), step("a", needs=["b"]), step("b", needs=["x", "c"])],
            "steps[1].needs",
            "c → a → b → c is a circle",
        ),
        (
            [step("a", needs=["b"]), step("b", needs=["a"]), step("c", needs=["d"]), step("d", needs=["c"])],
            "steps[0].needs",
            "a → b → a is a circle",
        ),
        ([loop("a", "b")], "steps[0].repeat.from", "'b' is no step that 'a' needs"),
        ([loop("a", "b"), step("b")], "steps[0].repeat.from", "'b' is no step that 'a' needs"),
        ([step("b"), loop("a", "b", needs=[])], "steps[1].repeat.from", "'b' is no step that 'a' needs"),
        (
            [
                step("v", needs=[]),
                step("y", needs=[]),
                step("w", needs=["v", "y"]),
                step("x", needs=["v", "y"]),
                loop("one", "y", needs=["w"]),
                loop("two", "v", needs=["x"]),
            ],
            "steps[2].needs",
            (
                "w → two → x → one → w is a circle: each waits for the one behind it, since what is outside "
                "a loop waits for its end"
            ),
        ),
        ([step("a", when="failed")], "steps[0].when", "it would never begin"),
        ([step("a"), step("b", when="failed", needs=[])], "steps[1].when", "needs none that could fail"),
        (
            [step("a"), step("b", when="failed"), step("c")],
            "steps[2].when",
            (
                "it needs 'b', which begins only after a "
                "failure, and then only steps with 'failed' or 'always' begin; 'not_failed' lets it begin"
            ),
        ),
        ([step("a"), step("b", when="failed"), step("c", when=NEVER)], "steps[2].when", "lets it never begin"),
        (
            [step("a", approval={"roles": ["approver", "boss"]})],
            "steps[0].approval.roles[1]",
            "'boss' is no role; allowed: viewer, operator, approver, admin",
        ),
        ([step("a", concurrency_key="k")], "steps[0].concurrency_limit", "goes with 'concurrency_key'"),
        ([step("a", concurrency_limit=2)], "steps[0].concurrency_limit", "goes with 'concurrency_key'"),
        ([step("a", ordering_key="k/${inputs.x}")], "steps[0].ordering_key", "takes no references"),
        ([step("a", concurrency_key="${run.id}", concurrency_limit=1)], "steps[0].concurrency_key", "no references"),
        (
            [step("a", hints={"agent": "web"})],
            "steps[0].hints.agent",
            "is not known here (did you mean 'agent_id'?); allowed: agent_id, agent_type",
        ),
        ([step("a", hints={"agent_id": "web"})], "steps[0].hints.agent_id", "valid UUID"),
        ([step("a", hints={"required_capabilities": {"x": {}}})], "steps[0].hints.required_capabilities", "x: must be"),
        ([step("a", hints={"agents": "${run.id}"})], "steps[0].hints.agents", "is not known here"),
        ([step("a", undo={"work_type": "own", "hints": {"x": 1}})], "steps[0].undo.hints.x", "is not known here"),
        (
            [step("a"), step("b", work_type="shell_script", parameters={"agrv": ["${steps.a.output}"]})],
            "steps[1].parameters.agrv",
            "is not known here (did you mean 'argv'?); allowed: argv, artifacts, cwd, env",
        ),
        (
            [step("a", work_type="echo", parameters={"message": 1})],
            "steps[0].parameters.message",
            "should be a valid string",
        ),
        (
            [step("a", undo={"work_type": "echo", "parameters": {"text": "${steps.a.output}"}})],
            "steps[0].undo.parameters.text",
            "is not known here; allowed: message",
        ),
    ],
)
def test_steps_that_do_not_fit_together_are_named(steps: list[dict[str, Any]], field: str, problem: str) -> None:
    found, said = refused(*steps)

    assert found == field
    assert problem in said
    assert "\n" not in said


def test_what_follows_a_failure_that_is_forgiven_may_go_on() -> None:
    check(make_plan(step("try", may_fail=True), step("repair", when="failed"), step("go-on")))


def test_a_long_circle_is_cut_short() -> None:
    steps = [step(f"s{number}", needs=[f"s{(number + 1) % MOST_STEPS}"]) for number in range(MOST_STEPS)]

    field, problem = refused(*steps)

    assert field == "steps[0].needs"
    assert problem.startswith("s0 → s1 → s2 → s3 → s4 → s5 → s6 → s7 → … → s0 is a circle")


SAYS_NOTHING = "refers to 'c', which 'b' does not wait for, neither itself nor by its needs"


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"parameters": {"x": ["${steps.c.status}"]}}, "parameters.x[0]", SAYS_NOTHING),
        ({"parameters": {"x": "${steps.c.status?}"}}, "parameters.x", SAYS_NOTHING),
        ({"parameters": {"x": "${steps.b.status}"}}, "parameters.x", "refers to 'b', which 'b' does not wait for"),
        ({"parameters": {"x": "${steps.nobody.status}"}}, "parameters.x", "refers to 'nobody', which is no step"),
        ({"parameters": {"x": "${steps.a.status}"}, "needs": []}, "parameters.x", "refers to 'a', which 'b' does not"),
        ({"parameters": {"x": "${HOME}"}}, "parameters.x", "'${HOME}' is no reference"),
        ({"parameters": {"x": "a ${b"}}, "parameters.x", "without its '}'"),
        ({"parameters": {"x": "${inputs.other}"}}, "parameters.x", "an input that is not given; given: map, topic"),
        ({"parameters": {"x": "${inputs.map.y}"}}, "parameters.x", "a part of an input that this does not have"),
        ({"hints": {"agent_id": "${steps.c.result}"}}, "hints.agent_id", SAYS_NOTHING),
        ({"when": {"value": "${steps.c.status}", "equals": 1}}, "when.value", SAYS_NOTHING),
        ({"when": {"value": 1, "equals": "${steps.b.status}"}}, "when.equals", "refers to 'b', which 'b' does not"),
        ({"when": {"value": 1, "one_of": ["${inputs.no}"]}}, "when.one_of[0]", "that is not given"),
        (
            {"repeat": {"until": {"value": "${steps.c.status}", "equals": 1}, "at_most": 2}},
            "repeat.until.value",
            SAYS_NOTHING,
        ),
        (
            {"repeat": {"until": {"value": 1, "not_equals": "${x}"}, "at_most": 2}},
            "repeat.until.not_equals",
            "is no reference",
        ),
        ({"undo": {"work_type": "own", "parameters": {"x": "${steps.c.result?}"}}}, "undo.parameters.x", SAYS_NOTHING),
        (
            {"undo": {"work_type": "own", "hints": {"agent_id": "${steps.c.result}"}}},
            "undo.hints.agent_id",
            SAYS_NOTHING,
        ),
    ],
)
def test_references_that_lead_nowhere_are_named(fields: dict[str, Any], field: str, problem: str) -> None:
    found, said = refused(step("a"), step("b", **fields), step("c"), inputs={"topic": "x", "map": {"x": 1}})

    assert found == f"steps[1].{field}"
    assert problem in said


def test_a_loop_may_look_back_only_where_there_need_be_nothing() -> None:
    field, problem = refused(step("write", parameters={"x": "${steps.review.result}"}), loop("review", "write"))

    assert field == "steps[0].parameters.x"
    assert problem == (
        "${steps.review.result} has no value in the first round of the loop; end it with '?', which lets it have none"
    )
    check(make_plan(step("write", parameters={"x": "${steps.review.result?}"}), loop("review", "write")))


def test_inputs_are_those_that_the_plan_has_or_refers_to() -> None:
    plan = make_plan(step(parameters={"x": "${inputs.topic}", "y": "${inputs.note?}"}), inputs={"stage": "test"})

    check(plan, {"topic": 1, "note": 2, "stage": 3})
    check(plan, {"topic": None})
    with pytest.raises(InvalidField, match=r"^steps\[0\]\.parameters\.x: .* that is not given; given: stage$"):
        check(plan)
    with pytest.raises(InvalidField, match=r"^inputs\.tpoic: is no input of this plan; it has: note, stage, topic$"):
        check(plan, {"topic": 1, "tpoic": 1})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("x" * 524_288, "at most 524288 bytes of JSON"),
        ("\x00", "topic: must not contain the NUL"),
        (2**60, "topic: must not contain numbers beyond"),
    ],
    ids=["large", "NUL", "number"],
)
def test_an_input_that_cannot_be_kept_is_refused(value: Any, problem: str) -> None:
    assert problem in refused(step(), inputs={"topic": ""}, given={"topic": value})[1]


def test_all_parts_of_a_plan_together_have_a_limit() -> None:
    steps = [step(f"s{number}", parameters={"x": "y" * 500_000}) for number in range(5)]

    field, problem = refused(*steps)

    assert field == "plan"
    assert problem.startswith(f"must have at most {MAX_PLAN_BYTES} bytes of JSON, not 25")


def test_loops_in_loops_cannot_go_on_for_ever() -> None:
    steps = [step("a"), loop("b", "a", 100), loop("c", "a", 100), step("d")]

    assert refused(*steps) == (
        "steps",
        "could begin 20101 times, with all rounds of their loops; at most 10000",
    )
    check(make_plan(step("a"), loop("b", "a", 50), loop("c", "a", 90), step("d")))


def test_the_steps_are_ordered_whatever_their_order_in_the_plan() -> None:
    plan = make_plan(
        step("d", needs=["b", "c"]), step("b", needs=["a"]), step("c", needs=["a"]), step("a", needs=[]), step("e")
    )

    order = order_of(plan)

    names = list(order.steps)
    assert sorted(names) == ["a", "b", "c", "d", "e"]
    assert all(names.index(need) < names.index(name) for name in names for need in order.needs[name])
    assert order.needs["e"] == ["a"]
    assert order.is_before("a", "d")
    assert not order.is_before("d", "a")
    assert not order.is_before("b", "c")


def test_what_is_outside_a_loop_waits_for_its_end() -> None:
    plan = make_plan(step("a"), step("b"), loop("c", "a"), step("d", needs=["a"]), loop("e", "b", needs=["c", "d"]))

    order = order_of(plan)

    assert {name: set(waits) for name, waits in order.waits.items()} == {
        "a": set(),
        "b": {"a"},
        "c": {"b"},
        "d": {"a", "c"},
        "e": {"c", "d"},
    }
    assert {end: set(steps) for end, steps in order.loops.items()} == {"c": {"a", "b", "c"}, "e": {"b", "c", "e"}}
    assert order.are_in_a_loop("b", "e")
    assert not order.are_in_a_loop("a", "e")


SHAPES = {
    "chain": [step(f"s{number}", parameters={"x": "${inputs.a} ${run.id}"}) for number in range(MOST_STEPS)],
    "wide": [step(f"s{number}", needs=[]) for number in range(MOST_STEPS)],
    "dense": [step(f"s{number}", needs=[f"s{other}" for other in range(number)]) for number in range(MOST_STEPS)],
    "loops": [loop(f"s{number}") for number in range(MOST_STEPS)],
    "long loops": [step("s0")] + [loop(f"s{number}", "s0", 1) for number in range(1, MOST_STEPS)],
}
# Of processor time, on a machine that does other things; it takes a tenth of it and less.
MOST_SECONDS = {"chain": 0.5, "wide": 0.5, "dense": 4, "loops": 1, "long loops": 4}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_plan_is_checked_in_no_time(shape: str) -> None:
    plan = plan_of({"inputs": {"a": 1}, "steps": SHAPES[shape]})
    begun = time.process_time()

    check(plan)

    assert time.process_time() - begun < MOST_SECONDS[shape]
