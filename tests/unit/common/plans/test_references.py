"""What references stand for, and what is none."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidField
from common.plans.references import MissingValue, Reference, Scope, has_references, parts_of, references_in, resolve
from tests.fuzz.bounds import bounded

TASK = "6f2a0c9e-4a55-4f0c-8f4e-0d2f2f0a7b11"
AGENT = "a9e27000-4a55-4f0c-8f4e-0d2f2f0a7b11"
STEPS: dict[str, dict[str, Any]] = {
    "build": {
        "status": "succeeded",
        "result": {"image": "web:2", "sizes": [10, 20], "none": None, "deep": {"a": {"b": True}}, "2": "two"},
        "output": "built\n",
        "exit_code": 0,
        "task_id": TASK,
        "agent_id": AGENT,
        "round": 2,
    },
    "skipped": {"status": "skipped"},
}
SCOPE = Scope(
    {"service": "web", "count": 3, "half": 0.5, "whole": 2.0, "flag": True, "none": None, "list": ["x", {"y": 1}]},
    {"id": "r1", "name": "nightly"},
    lambda name: STEPS.get(name, {}),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("$", "$"),
        ("$HOME {x} }", "$HOME {x} }"),
        ("$${HOME}", "${HOME}"),
        ("$$${HOME}", "$${HOME}"),
        ("a $${b} ${inputs.service}", "a ${b} web"),
        ("${inputs.service}", "web"),
        ("${inputs.count}", 3),
        ("${inputs.none}", None),
        ("${inputs.list}", ["x", {"y": 1}]),
        ("${inputs.list.1.y}", 1),
        ("${run.id}", "r1"),
        ("run ${run.name}!", "run nightly!"),
        ("${steps.build.status}", "succeeded"),
        ("${steps.build.result}", STEPS["build"]["result"]),
        ("${steps.build.result.image}", "web:2"),
        ("${steps.build.result.2}", "two"),
        ("${steps.build.result.sizes.1}", 20),
        ("${steps.build.result.deep.a.b}", True),
        ("${steps.build.result.none}", None),
        ("${steps.build.output}", "built\n"),
        ("${steps.build.exit_code}", 0),
        ("${steps.build.task_id}", TASK),
        ("${steps.build.agent_id}", AGENT),
        ("${steps.build.round}", 2),
        ("${steps.build.artifacts.dist/web-2.0.whl}", {"task": TASK, "artifact": "dist/web-2.0.whl"}),
        ("${steps.skipped.status}", "skipped"),
        ("${inputs.count}${inputs.count}", "33"),
        (
            "n=${inputs.count} h=${inputs.half} w=${inputs.whole} f=${inputs.flag} 0=${inputs.none}.",
            "n=3 h=0.5 w=2 f=true 0=null.",
        ),
        ("l=${inputs.list}", 'l=["x",{"y":1}]'),
        ("${steps.build.error?}", None),
        ("${steps.build.result.nothing?}", None),
        ("${steps.skipped.artifacts.x?}", None),
        ("${steps.other.status?}", None),
        ("${inputs.nothing?}", None),
        ("${inputs.service?}", "web"),
        ("[${steps.build.error?}] [${inputs.none?}]", "[] []"),
    ],
)
def test_a_reference_stands_for_its_value(text: str, value: Any) -> None:
    found = resolve({"a": [text]}, SCOPE, "parameters")["a"][0]

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "${inputs.nothing}",
        "${inputs.service.x}",
        "${inputs.list.2}",
        "${inputs.list.-1}",
        "${inputs.list.99999999999999999999}",
        "${steps.build.result.none.x}",
        "${steps.build.error}",
        "${steps.skipped.result}",
        "${steps.skipped.artifacts.log}",
        "${steps.other.status}",
    ],
)
def test_a_value_that_is_missing_is_named_with_its_place(text: str) -> None:
    with pytest.raises(MissingValue) as error:
        resolve({"a": [1, {"b": f"x {text}"}]}, SCOPE, "steps[0].parameters")

    assert error.value.field == "steps[0].parameters.a[1].b"
    assert error.value.reference.text == text
    assert error.value.problem == f"{text} has no value; with a '?' before its '}}' it may have none"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${HOME}", "'${HOME}' is no reference; allowed: inputs.…, run.… or steps.…; the text itself is written '$${'"),
        ("${}", "'${}' is no reference"),
        ("${?}", "is no reference"),
        ("${ inputs.a }", "is no reference"),
        ("${inputs}", "allowed: inputs.NAME"),
        ("${inputs.}", "allowed: inputs.NAME"),
        ("${inputs.a..b}", "allowed: inputs.NAME"),
        ("${run}", "allowed: run.id or run.name"),
        ("${run.trace_id}", "allowed: run.id or run.name"),
        ("${run.id.x}", "allowed: run.id or run.name"),
        ("${steps.build}", "allowed: steps.STEP. and one of status, result, output"),
        ("${steps.build.stdout}", "allowed: steps.STEP. and one of status"),
        ("${steps.build.status.x}", "allowed: steps.STEP."),
        ("${steps.build.artifacts}", "names may stand behind result and artifacts"),
        ("${steps.build.artifacts.}", "names may stand behind"),
        ("${steps.build.result.}", "allowed: steps.STEP."),
        ("${steps..status}", "allowed: steps.STEP."),
        ("${inputs.a", "has a '${' without its '}'; the text itself is written '$${'"),
        ("x ${ ${inputs.a}", "is no reference"),
        ("${" + "x" * 10_000 + "}", "…}' is no reference"),
        ("${" * 100_000, "without its '}'"),
    ],
)
def test_what_is_no_reference_is_said_in_a_sentence(text: str, problem: str) -> None:
    with pytest.raises(InvalidField) as error:
        list(references_in({"script": ["", text]}, "steps[3].parameters"))

    assert error.value.field == "steps[3].parameters.script[1]"
    assert problem in error.value.problem
    assert len(error.value.problem) < 400


def test_references_are_found_with_their_places_in_their_order() -> None:
    value = {"a": "${run.id} ${inputs.x.y?}", "b": [1, {"c": "${steps.s.output}", "${run.id}": "a name is no text"}]}

    found = [(place, reference.text) for place, reference in references_in(value, "p")]

    assert found == [("p.a", "${run.id}"), ("p.a", "${inputs.x.y?}"), ("p.b[1].c", "${steps.s.output}")]
    assert parts_of("${inputs.x.y?}") == [Reference("${inputs.x.y?}", "inputs", ("x", "y"), is_optional=True)]
    assert has_references(value)
    assert not has_references({"a": "$${run.id}", "b": [None, 1, "$"]})


def test_a_value_is_never_read_again() -> None:
    scope = Scope({"a": "${run.id} $${x}"}, {"id": "r"}, lambda _: {})

    assert resolve(["${inputs.a}", "- ${inputs.a}"], scope, "p") == ["${run.id} $${x}", "- ${run.id} $${x}"]


@bounded(50)
@given(st.text(alphabet="${}?.ab inputs", max_size=40))
def test_any_text_is_parsed_or_refused_and_escaping_keeps_it(text: str) -> None:
    try:
        parts = parts_of(text)
    except ValueError as problem:
        assert "${" in text
        assert "\n" not in str(problem)  # noqa: PT017 - the sentence is what is looked at
    else:
        written = "".join(part.text if isinstance(part, Reference) else part.replace("${", "$${") for part in parts)
        assert written == text
    escaped = text.replace("${", "$${")
    assert resolve(escaped, SCOPE, "p") == text


@pytest.mark.parametrize("text", ["${inputs.big}", "x${inputs.big}"])
@pytest.mark.parametrize("shape", ["one text", "many texts"])
def test_many_references_to_a_large_value_are_refused_before_they_are_copied(text: str, shape: str) -> None:
    scope = Scope({"big": ["y" * 1000] * 100}, {}, lambda _: {})
    value = text * 30_000 if shape == "one text" else [text] * 30_000
    begun = time.process_time()

    with pytest.raises(InvalidField, match=r"^p: must have at most 524288 bytes of JSON; with the values"):
        resolve({"a": value}, scope, "p")

    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("\x00", "a: must not contain the NUL character"),
        ("\ud800", "a: must be valid Unicode"),
    ],
)
def test_a_value_that_cannot_be_sent_on_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(InvalidField) as error:
        resolve({"a": "${inputs.v}"}, Scope({"v": value}, {}, lambda _: {}), "p")

    assert error.value.field == "p"
    assert problem in error.value.problem


def test_a_value_that_becomes_too_deep_is_refused() -> None:
    deep: Any = 1
    for _ in range(60):
        deep = [deep]

    with pytest.raises(InvalidField, match="nested deeper than 64 levels"):
        resolve({"a": {"b": {"c": {"d": ["${inputs.v}"]}}}}, Scope({"v": deep}, {}, lambda _: {}), "p")
