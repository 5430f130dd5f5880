"""What may be asked of a work type."""

from typing import Any

import pytest
from pydantic import ValidationError

from common.json_rules import MAX_DEPTH, check_json
from common.work import EchoParameters, ShellScriptParameters


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({}, "exactly one"),
        ({"argv": ["a"], "script": "b"}, "exactly one"),
        ({"argv": []}, "at least 1"),
        ({"argv": ["a\x00"]}, "NUL"),
        ({"script": "\ud800"}, "surrogate|unicode"),
        ({"script": "x", "env": {"1A": "x"}}, "1A"),
        ({"script": "x", "env": {"A=B": "x"}}, "A=B"),
        ({"argv": ["x", {"secret": "a"}]}, "everybody on the host can see arguments"),
        ({"script": "x", "env": {"A": {"secret": "no name"}}}, "env.A"),
        ({"script": "x", "stdin": {"secret": "a", "more": 1}}, "stdin"),
        ({"script": "x", "max_duration_seconds": 0}, "greater than 0"),
        ({"script": "x", "max_duration_seconds": float("nan")}, "finite"),
        ({"script": "x", "max_duration": 5}, "Extra inputs"),
    ],
    ids=str,
)
def test_parameters_that_are_not_allowed_are_refused_with_the_reason(parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ShellScriptParameters.model_validate(parameters)


def test_an_echo_has_a_message() -> None:
    assert EchoParameters.model_validate({"message": "hi"}).message == "hi"
    with pytest.raises(ValidationError):
        EchoParameters.model_validate({"mesage": "hi"})


def test_json_may_be_nested_up_to_the_limit_and_no_deeper() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert check_json(value) == value

    with pytest.raises(ValueError, match="nested"):
        check_json([value])
