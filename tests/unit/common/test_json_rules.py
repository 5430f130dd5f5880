"""JSON is measured as it is stored, and texts that people read in a line are lines."""

import json
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from chiffon.in_process.model import BadExecution, check_text_argument, frozen_payload
from common.canonical import MAX_INTEGER, canonical_json
from common.errors import InvalidField
from common.json_rules import check_json, check_line, check_size
from common.messages import StatusUpdate, WorkStatus
from common.protocol import UnreadableMessage, decode
from common.rest import agents, approvals, fan_outs, identities, jobs, tasks, workers
from common.result import canonical_result
from common.schemas import check_schema
from common.work import MAX_PARAMETERS_BYTES, check_parameters


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"x": [0, 1e308]}, "x.1: must not contain numbers beyond ±9007199254740991"),
        ({"a": {"b": -1e19}}, "a.b: must not contain numbers beyond ±9007199254740991"),
        ({"a": 2.0**53}, "a: must not contain numbers beyond ±9007199254740991"),
        ({"a": [{"b": 2**53}]}, "a.0.b: must not contain numbers beyond"),
        ({"a": float("nan")}, "a: must not contain NaN"),
        ({"a": "\x00"}, "a: must not contain the NUL character"),
        ({"a": {"\ud800": 1}}, "a: must be valid Unicode"),
        (1e19, "must not contain numbers beyond"),
    ],
)
def test_a_number_or_text_that_cannot_be_kept_is_named_by_its_place(value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match="^" + problem.replace(".", r"\.")):
        check_json(value)


@pytest.mark.parametrize("number", [0.0, -0.0, 1.5, 2.0**53 - 1, 1 - 2.0**53, 2**53 - 1, 1 - 2**53, 5e-324, 6.6e-34])
def test_numbers_that_are_exact_or_small_are_kept(number: float) -> None:
    assert check_json({"a": [number]}) == {"a": [number]}


def test_the_place_of_a_number_in_a_dispatch_is_told_to_the_caller() -> None:
    with pytest.raises(ValidationError, match=r"parameters\n.*x\.2: must not contain numbers beyond"):
        tasks.DispatchRequest.model_validate_json(
            f'{{"task_id": "{uuid4()}", "work_type": "big", "parameters": {{"x": [1, 2, 1e308]}}}}'
        )
    with pytest.raises(ValidationError, match=r"payload\n.*x\.0: must not contain numbers beyond"):
        jobs.JobRequest.model_validate_json('{"type": "big", "payload": {"x": [1e19]}}')


SMALL, ROUND = 5e-324, 1e15


@pytest.mark.parametrize("number", [SMALL, ROUND, 1e-7, 0.1])
@pytest.mark.parametrize(
    ("check", "most"),
    [
        (lambda value: check_parameters("own", value), MAX_PARAMETERS_BYTES),
        (frozen_payload, MAX_PARAMETERS_BYTES),
        (canonical_result, 64 * 1024),
        (check_schema, 16 * 1024),
    ],
    ids=["parameters", "in-process", "result", "schema"],
)
def test_nothing_is_larger_in_the_ledger_than_its_limit(number: float, check: Any, most: int) -> None:
    # As PostgreSQL writes it: 5e-324 has 326 characters, 1e15 has 16.
    written = len(format(Decimal(repr(number)), "f").removesuffix(".0"))
    fitting, too_many = most // (written + 8), most // (written + 1) + 2

    check({"x": [number] * fitting})
    with pytest.raises((ValueError, InvalidField, BadExecution), match=f"at most {most} bytes of JSON, not "):
        check({"x": [number] * too_many})


@given(
    st.recursive(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
        | st.floats(-MAX_INTEGER, MAX_INTEGER)
        | st.integers(-MAX_INTEGER, MAX_INTEGER)
        | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
        max_leaves=20,
    ),
    st.integers(0, 400),
)
def test_a_small_value_that_is_not_measured_is_within_its_limit(value: Any, most: int) -> None:
    stored = len(canonical_json(value))
    try:
        check_size(value, most)
    except ValueError:
        assert stored > most or "e-" in json.dumps(value)
    else:
        assert stored <= most


TRICKS = {
    "escape": "\x1b",
    "newline": "\n",
    "tab": "\t",
    "NUL": "\x00",
    "delete": "\x7f",
    "C1": "\x9b",
    "line separator": "\u2028",
    "override": "\u202e",
    "isolate": "\u2066",
    "mark": "\u200f",
}
LINES: list[tuple[type[BaseModel], str, dict[str, Any]]] = [
    (workers.WorkerReport, "hostname", {}),
    (workers.WorkerReport, "version", {}),
    (workers.WorkerReport, "workTypes", {}),
    (workers.WorkerReport, "labels", {}),
    (jobs.JobRequest, "type", {"payload": {}}),
    (jobs.JobRequest, "affinityKey", {"payload": {}, "type": "x"}),
    (jobs.ClaimRequest, "workerId", {"leaseSeconds": 1}),
    (jobs.ProgressRequest, "progress", {"workerId": "x"}),
    (jobs.CompleteRequest, "artifactsPath", {"workerId": "x"}),
    (tasks.DispatchRequest, "ordering_key", {"task_id": str(uuid4()), "work_type": "echo"}),
    (tasks.DispatchRequest, "concurrency_key", {"task_id": str(uuid4()), "work_type": "echo"}),
    (tasks.DispatchRequest, "name", {"task_id": str(uuid4()), "work_type": "echo"}),
    (tasks.DispatchRequest, "labels", {"task_id": str(uuid4()), "work_type": "echo"}),
    (fan_outs.On, "agents", {}),
    (agents.PauseRequest, "note", {}),
    (agents.NoteRequest, "note", {}),
    (approvals.ApprovalRequest, "note", {"work_type": "echo"}),
    (approvals.ApproveRequest, "comment", {}),
    (approvals.RejectRequest, "reason", {}),
    (approvals.CommentRequest, "text", {}),
    (identities.IdentityRequest, "name", {"roles": ["viewer"]}),
    (identities.TokenRequest, "note", {"principal_id": str(uuid4())}),
    (identities.EnrolmentRequest, "name", {"agent_type": "infra"}),
]


@pytest.mark.parametrize(("model", "field", "rest"), LINES, ids=[f"{one[0].__name__}.{one[1]}" for one in LINES])
def test_a_text_that_is_read_in_a_line_is_refused_by_its_field_with_control_characters(
    model: type[BaseModel], field: str, rest: dict[str, Any]
) -> None:
    for name, trick in TRICKS.items():
        text: Any = f"a{trick}b"
        value = {"labels": {"zone": text}, "workTypes": [text], "agents": [text]}.get(field, text)

        with pytest.raises(ValidationError) as refused:
            model.model_validate({**rest, field: value})

        assert {error["loc"][0] for error in refused.value.errors()} == {field}, name


@pytest.mark.parametrize(("message", "field"), [("status_update", "hostname"), ("status_update", "version")])
def test_a_message_with_control_characters_in_a_line_is_not_read_and_its_field_is_named(
    message: str, field: str
) -> None:
    said = {"type": message, "payload": {field: "a\x1b[2Jb"}}

    with pytest.raises(UnreadableMessage):
        decode(json.dumps(said).encode())
    assert field in StatusUpdate.model_fields
    with pytest.raises(ValidationError, match="control"):
        StatusUpdate.model_validate({field: "a\x1b[2Jb"})


def test_progress_with_control_characters_is_not_read() -> None:
    with pytest.raises(ValidationError, match=r"progress\n.*U\+001B"):
        WorkStatus(task_id=uuid4(), agent_id=uuid4(), attempt=1, progress="40% \x1b[2J")


@pytest.mark.parametrize("text", ["Grüße, мир, 世界! 🎉", "שלום", "a b", "👩\u200d💻", ""])
def test_a_line_may_be_of_any_script(text: str) -> None:
    assert check_line(text) == text


@pytest.mark.parametrize("name", ["command", "requested_by", "by", "reason"])
def test_an_argument_in_process_is_a_line(name: str) -> None:
    with pytest.raises(BadExecution, match=f"^{name}: must not contain control"):
        check_text_argument(name, "ann\x1b[2J")
