"""What an executor returns leaves the host as JSON without secrets, or as a failure that says why."""

from typing import Any
from uuid import uuid4

import pytest

from agents.executors.base import Outcome
from agents.tasks.results import work_result
from common.errors import ErrorCode
from common.messages import LONGEST_MESSAGE, ResultStatus
from common.protocol import UnreadableMessage, decode, encode
from common.result import MAX_RESULT_BYTES
from tests.factories import make_grant


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_result_becomes_what_its_canonical_json_says() -> None:
    outcome = Outcome(ResultStatus.COMPLETED, result={"b": (1, 2.0), "a": None})  # type: ignore[dict-item]

    assert outcome.leaving(str).result == {"a": None, "b": [1, 2]}


def test_secrets_are_taken_out_of_the_result_and_the_message() -> None:
    outcome = Outcome(ResultStatus.FAILED, 2, "bad word", result={"word": ["bad"]})

    hidden = outcome.leaving(lambda text: text.replace("bad", "-"))

    assert hidden == Outcome(ResultStatus.FAILED, 2, "- word", result={"word": ["-"]})


def test_a_result_of_the_largest_size_is_kept() -> None:
    text = "x" * (MAX_RESULT_BYTES - 2)

    assert Outcome(ResultStatus.COMPLETED, result=text).leaving(str).result == text


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (
            "x" * (MAX_RESULT_BYTES - 1),
            f"must have at most {MAX_RESULT_BYTES} bytes of JSON, not {MAX_RESULT_BYTES + 1}",
        ),
        ("a\x00b", "must not contain the NUL character (U+0000)"),
        (float("nan"), "must not contain NaN or Infinity: JSON has no such numbers"),
        (deep(10_000), "must not be nested deeper than 64 levels"),
        ({1: 2}, "must have texts as names"),
        (object(), "must be JSON: JSON has no object"),
    ],
)
def test_work_whose_result_cannot_be_kept_has_failed(result: Any, problem: str) -> None:
    outcome = Outcome(ResultStatus.COMPLETED, exit_code=0, result=result)

    assert outcome.leaving(str) == Outcome.failed(f"The result of the work {problem}.", exit_code=0)


def test_work_that_failed_by_itself_still_says_why() -> None:
    outcome = Outcome(ResultStatus.FAILED, 2, "It broke.", ErrorCode.TIMEOUT, retryable=True, result="\x00")

    assert outcome.leaving(str) == Outcome(
        ResultStatus.FAILED,
        2,
        "It broke. The result of the work must not contain the NUL character (U+0000).",
        ErrorCode.TIMEOUT,
        retryable=True,
    )


def test_a_result_that_only_its_marks_make_too_large_has_failed() -> None:
    outcome = Outcome(ResultStatus.COMPLETED, result=["secret"] * 7_000)

    left = outcome.leaving(lambda text: text.replace("secret", "[redacted]"))

    assert (left.status, left.result) == (ResultStatus.FAILED, None)


def test_a_result_holds_an_error_message_of_the_largest_size_and_no_larger() -> None:
    agent_id = uuid4()

    sent = work_result(agent_id, make_grant(), Outcome.failed("x" * (LONGEST_MESSAGE + 1)))

    assert sent.payload.error_message == "x" * LONGEST_MESSAGE
    assert decode(encode(sent)).type == "work_result"
    longer = encode(sent).replace(b"x" * LONGEST_MESSAGE, b"x" * (LONGEST_MESSAGE + 1))
    with pytest.raises(UnreadableMessage, match=r"payload\.error_message"):
        decode(longer)
