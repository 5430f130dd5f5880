"""What a plan may say: every field, what is refused in it, and that it is read again as it was written."""

import json
from typing import Any

import pytest

from common.canonical import MAX_INTEGER
from common.errors import InvalidField
from common.plans.check import check
from common.plans.model import MOST_STEPS, Plan, plan_digest
from common.plans.read import plan_of, read_plan
from common.policy.model import ApprovalDemand
from common.work import MAX_PARAMETERS_BYTES
from tests.unit.common.plans.plans import make_plan, refused, step

REVIEW = """
name = "write and review"

[inputs]
topic = "queues"

[[steps]]
name = "write"
work_type = "agent_task"
parameters = { about = "${inputs.topic}", comment = "${steps.review.result.comment?}" }
hints = { agent_type = "desktop" }
undo = { work_type = "agent_task", parameters = { remove = "${steps.write.result.file}" } }

[[steps]]
name = "review"
work_type = "agent_task"
parameters = { file = "${steps.write.result.file}" }
repeat = { from = "write", at_most = 3, until = { value = "${steps.review.result.decision}", equals = "approve" } }

[[steps]]
name = "release"
work_type = "echo"
approval = { approvers = 2, roles = ["editor"] }
max_attempts = 3
ordering_key = "releases"
concurrency_key = "releases"
concurrency_limit = 1
expires_after_seconds = 3600

[[steps]]
name = "tell"
work_type = "echo"
needs = ["write", "release"]
when = "always"
may_fail = true
idempotent = true
priority = 5
"""


def test_a_plan_is_read_from_toml() -> None:
    plan = read_plan(REVIEW)

    write, review, release, tell = plan.steps
    assert plan.inputs == {"topic": "queues"}
    assert review.repeat is not None
    assert (review.repeat.from_step, review.repeat.at_most) == ("write", 3)
    assert write.undo is not None
    assert write.undo.parameters == {"remove": "${steps.write.result.file}"}
    assert release.approval == ApprovalDemand(approvers=2, roles=("editor",))
    assert (tell.needs, tell.when, tell.may_fail, tell.priority) == (["write", "release"], "always", True, 5)
    assert (write.needs, write.when, write.may_fail, write.priority) == (None, "succeeded", False, 3)


def test_a_plan_that_was_stored_is_the_same_plan() -> None:
    plan = read_plan(REVIEW)

    stored = json.dumps(plan.model_dump(mode="json"))

    assert '"from": "write"' in stored
    assert plan_of(json.loads(stored)) == plan
    assert plan_of(plan.model_dump(mode="json", exclude_defaults=True)) == plan


def test_the_digest_is_that_of_what_is_asked_however_it_is_written() -> None:
    plan, spelled_out = make_plan(step()), make_plan(step(priority=3, needs=None, parameters={}, when="succeeded"))

    digest = plan_digest(plan, {"a": 1})

    assert len(digest) == 32
    assert digest == plan_digest(spelled_out, {"a": 1.0})
    assert digest not in {
        plan_digest(plan, {"a": 2}),
        plan_digest(plan, {}),
        plan_digest(make_plan(step(priority=4)), {"a": 1}),
        plan_digest(make_plan(step(needs=[])), {"a": 1}),
        plan_digest(make_plan(step(), inputs={"a": 1}), {}),
    }


CONDITION = {"value": "${run.id}", "equals": "x"}
LOOP = {"until": CONDITION, "at_most": 3}
UNDO = {"work_type": "echo"}
MISSING = "Field required"


@pytest.mark.parametrize(
    ("wrong", "field", "problem"),
    [
        ({"name": 1}, "name", "valid string"),
        ({"name": "a\nb"}, "name", "control"),
        ({"name": "x" * 129}, "name", "128"),
        ({"inputs": []}, "inputs", "must be an object"),
        ({"inputs": {"a": float("nan")}}, "inputs.a", "finite number"),
        ({"inputs": {"a": "x" * MAX_PARAMETERS_BYTES}}, "inputs", "at most 524288 bytes of JSON"),
        ({"steps": None}, "steps", "valid list"),
        ({"steps": []}, "steps", "at least 1"),
        ({"steps": {}}, "steps", "valid list"),
        ({"steps": ["build"]}, "steps[0]", "must be an object"),
        ({"stages": []}, "stages", "is not known here; allowed: inputs, name, steps"),
    ],
)
def test_each_mistake_in_a_plan_is_named(wrong: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(InvalidField) as error:
        plan_of({"steps": [step()], **wrong})

    assert error.value.field == field
    assert problem in error.value.problem


@pytest.mark.parametrize(
    ("given", "field", "meant"),
    [
        ({"step": [step()]}, "step", "steps"),
        ({"steps": [step()], "input": {}}, "input", "inputs"),
        ({"steps": [{"name": "a", "worktype": "echo"}]}, "steps[0].worktype", "work_type"),
        (
            {"steps": [step(repeat={"untill": {"value": 1, "equals": 1}, "at_most": 2})]},
            "steps[0].repeat.untill",
            "until",
        ),
        ({"steps": [step(work_type="echo", parameters={"massage": "x"})]}, "steps[0].parameters.massage", "message"),
        ({"steps": [step(hints={"agent_types": "x"})]}, "steps[0].hints.agent_types", "agent_type"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_one_that_was_meant(given: dict[str, Any], field: str, meant: str) -> None:
    with pytest.raises(InvalidField) as error:
        check(plan_of(given))

    assert error.value.field == field
    assert error.value.problem.startswith(f"is not known here (did you mean {meant!r}?); allowed: ")


@pytest.mark.parametrize("given", [None, [], "steps", 1])
def test_what_is_no_object_is_no_plan(given: Any) -> None:
    with pytest.raises(InvalidField, match=r"^plan: "):
        plan_of(given)


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"name": "Build"}, "name", "pattern"),
        ({"name": ""}, "name", "pattern"),
        ({"name": "a" * 65}, "name", "pattern"),
        ({"name": "a\n"}, "name", "pattern"),
        ({"name": None}, "name", "valid string"),
        ({"work_type": "no-type"}, "work_type", "pattern"),
        ({"work_type": None}, "work_type", "valid string"),
        ({"parameters": []}, "parameters", "must be an object"),
        ({"parameters": {"a": ["\x00"]}}, "parameters", "a.0: must not contain the NUL"),
        ({"parameters": {"a": "\ud800"}}, "parameters", "a: must be valid Unicode"),
        ({"parameters": {"a": MAX_INTEGER + 1}}, "parameters", "write them as texts"),
        ({"parameters": {"a": "x" * MAX_PARAMETERS_BYTES}}, "parameters", "at most 524288 bytes of JSON"),
        ({"hints": "web-1"}, "hints", "must be an object"),
        ({"hints": {"a": "x" * MAX_PARAMETERS_BYTES}}, "hints", "at most 524288 bytes of JSON"),
        ({"needs": "build"}, "needs", "valid list"),
        ({"needs": [1]}, "needs[0]", "valid string"),
        ({"needs": ["Build"]}, "needs[0]", "pattern"),
        ({"needs": ["a"] * (MOST_STEPS + 1)}, "needs", "at most 500"),
        ({"when": "sometimes"}, "when", "'succeeded', 'failed', 'not_failed' or 'always'"),
        ({"when": 1}, "when", "must be 'succeeded', 'failed', 'not_failed', 'always', or a condition"),
        ({"when": None}, "when", "must be 'succeeded'"),
        ({"when": {}}, "when.value", MISSING),
        ({"when": {"value": 1}}, "when", "exactly one of 'equals', 'not_equals' and 'one_of'"),
        ({"when": {"value": 1, "equals": 1, "one_of": [1]}}, "when", "exactly one of"),
        ({"when": {"value": 1, "equals": None}}, "when", "write one_of = [null]"),
        ({"when": {"value": 1, "is": 1}}, "when.is", "allowed: equals, not_equals, one_of, value"),
        ({"when": {"value": 1, "one_of": 1}}, "when.one_of", "valid list"),
        ({"when": {"value": 1, "one_of": []}}, "when.one_of", "at least 1"),
        ({"when": {"value": 1, "one_of": [1] * 101}}, "when.one_of", "at most 100"),
        ({"when": {"value": 1, "one_of": [float("inf")]}}, "when.one_of[0]", "finite number"),
        ({"when": {"value": "\x00", "equals": 1}}, "when.value", "NUL"),
        ({"when": {"value": 1, "not_equals": "x" * MAX_PARAMETERS_BYTES}}, "when.not_equals", "at most 524288"),
        ({"may_fail": "yes"}, "may_fail", "valid boolean"),
        ({"may_fail": 1}, "may_fail", "valid boolean"),
        ({"repeat": 3}, "repeat", "must be an object"),
        ({"repeat": {"at_most": 3}}, "repeat.until", MISSING),
        ({"repeat": {"until": CONDITION}}, "repeat.at_most", MISSING),
        ({"repeat": {**LOOP, "until": "done"}}, "repeat.until", "must be an object"),
        ({"repeat": {**LOOP, "at_most": 0}}, "repeat.at_most", "greater than or equal to 1"),
        ({"repeat": {**LOOP, "at_most": 101}}, "repeat.at_most", "less than or equal to 100"),
        ({"repeat": {**LOOP, "at_most": "3"}}, "repeat.at_most", "without quotes"),
        ({"repeat": {**LOOP, "at_most": True}}, "repeat.at_most", "not true or false"),
        ({"repeat": {**LOOP, "from": "One"}}, "repeat.from", "pattern"),
        ({"repeat": {**LOOP, "form": "one"}}, "repeat.form", "allowed: at_most, every_seconds, from, until"),
        ({"repeat": {**LOOP, "every_seconds": -1}}, "repeat.every_seconds", "greater than or equal to 0"),
        ({"repeat": {**LOOP, "every_seconds": 86_401}}, "repeat.every_seconds", "less than or equal to 86400"),
        ({"repeat": {**LOOP, "every_seconds": float("nan")}}, "repeat.every_seconds", "finite number"),
        ({"repeat": {**LOOP, "every_seconds": "5"}}, "repeat.every_seconds", "without quotes"),
        ({"undo": "revert"}, "undo", "must be an object"),
        ({"undo": {}}, "undo.work_type", MISSING),
        ({"undo": {**UNDO, "work_type": "No"}}, "undo.work_type", "pattern"),
        ({"undo": {**UNDO, "parameters": 1}}, "undo.parameters", "must be an object"),
        ({"undo": {**UNDO, "hints": 1}}, "undo.hints", "must be an object"),
        ({"undo": {**UNDO, "priority": 6}}, "undo.priority", "less than or equal to 5"),
        ({"undo": {**UNDO, "idempotent": "no"}}, "undo.idempotent", "valid boolean"),
        ({"undo": {**UNDO, "max_attempts": 21}}, "undo.max_attempts", "less than or equal to 20"),
        ({"undo": {**UNDO, "needs": []}}, "undo.needs", "is not known here; allowed: hints, idempotent, max_attempts"),
        ({"approval": True}, "approval", "must be an object"),
        ({"approval": {"approvers": 0}}, "approval.approvers", "greater than or equal to 1"),
        ({"approval": {"roles": []}}, "approval.roles", "at least 1"),
        ({"approval": {"who": "me"}}, "approval.who", "is not known here"),
        ({"priority": 0}, "priority", "greater than or equal to 1"),
        ({"priority": "high"}, "priority", "without quotes"),
        ({"idempotent": 0}, "idempotent", "valid boolean"),
        ({"max_attempts": 0}, "max_attempts", "greater than or equal to 1"),
        ({"expires_after_seconds": 0}, "expires_after_seconds", "greater than 0"),
        ({"expires_after_seconds": float("nan")}, "expires_after_seconds", "finite number"),
        ({"expires_after_seconds": 1e9}, "expires_after_seconds", "less than or equal to"),
        ({"ordering_key": ""}, "ordering_key", "at least 1"),
        ({"ordering_key": "x" * 201}, "ordering_key", "at most 200"),
        ({"concurrency_key": 1}, "concurrency_key", "valid string"),
        ({"concurrency_limit": 1001}, "concurrency_limit", "less than or equal to 1000"),
        ({"need": ["a"]}, "need", "is not known here (did you mean 'needs'?); allowed: approval, concurrency_key"),
    ],
)
def test_each_mistake_in_a_step_is_named(fields: dict[str, Any], field: str, problem: str) -> None:
    found, said = refused(step("first"), {**step("second"), **fields})

    assert found == f"steps[1].{field}"
    assert problem in said
    assert "\n" not in said


def test_a_step_without_a_name_or_a_work_type_is_refused() -> None:
    assert refused({"work_type": "echo"}) == ("steps[0].name", MISSING)
    assert refused({"name": "one"}) == ("steps[0].work_type", MISSING)


@pytest.mark.parametrize("many", [MOST_STEPS + 1, 10_000])
def test_too_many_steps_are_counted(many: int) -> None:
    assert refused(*(step(f"s{number}") for number in range(many))) == (
        "steps",
        f"must have at most 500 steps, not {many}",
    )


@pytest.mark.parametrize("depth", [100, 100_000])
@pytest.mark.parametrize("place", ["parameters", "hints", "when"])
def test_deep_json_is_refused(depth: int, place: str) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    deep = {"value": value, "equals": 1} if place == "when" else {"a": value}

    field, problem = refused({**step(), place: deep})

    assert field.startswith(f"steps[0].{place}")
    assert len(field) + len(problem) < 1000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("steps = [", "is not TOML: "),
        ("a = 1\na = 2", "is not TOML: "),
        ("a = " + "[" * 100_000, "is not TOML: "),
        ("", "Field required"),
    ],
    ids=["half", "twice", "deep", "empty"],
)
def test_what_is_no_toml_or_holds_no_plan_is_said_in_a_sentence(text: str, problem: str) -> None:
    with pytest.raises(InvalidField) as error:
        read_plan(text)

    assert problem in error.value.problem
    assert len(str(error.value)) < 300


def test_a_mistake_in_toml_is_named_by_its_place() -> None:
    with pytest.raises(InvalidField, match=r"^steps\[1\]\.repeat\.at_most: Input should be less than or equal to 100"):
        read_plan(REVIEW.replace("at_most = 3", "at_most = 1000"))


def test_the_schema_names_the_loop_as_it_is_written() -> None:
    schema = Plan.model_json_schema()

    assert set(schema["$defs"]["Repeat"]["properties"]) == {"until", "at_most", "every_seconds", "from"}
