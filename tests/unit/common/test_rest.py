"""What the models of the REST API let through: what a newer server says, and what a caller may send."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from common.errors import InvalidField
from common.rest.agents import PauseRequest
from common.rest.base import Request
from common.rest.bodies import body_of
from common.rest.fan_outs import On
from common.rest.identities import IdentityRequest, PrincipalKind, Role, TokenRequest, WhoAmI
from common.rest.jobs import ClaimRequest
from common.rest.tasks import DispatchRequest
from common.rest.why import Blocker, BlockerKind

WRONG_BATCHES = ["0%", "101%", "10", "10 %", 0, 1001, 5.5, True]

ID = UUID("7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11")
WHO: dict[str, Any] = {
    "principal_id": str(ID),
    "kind": "person",
    "name": "ann",
    "roles": ["operator"],
    "permissions": ["read"],
    "token_id": None,
    "agent_id": None,
}


def test_a_field_and_a_value_of_a_newer_server_do_not_keep_an_answer_from_being_read() -> None:
    said = WHO | {"kind": "robot", "roles": ["operator", "juggler"], "mood": "good"}

    read = WhoAmI.model_validate(said)

    assert (read.kind, read.roles) == ("robot", [Role.OPERATOR, "juggler"])
    assert read.model_dump(mode="json") == {name: said[name] for name in WHO}


def test_a_value_that_is_known_is_read_as_what_it_is() -> None:
    assert WhoAmI.model_validate(WHO).kind is PrincipalKind.PERSON
    assert Blocker(kind=BlockerKind.QUEUED, message="Next.").kind is BlockerKind.QUEUED


@pytest.mark.parametrize("value", [3, None, ["person"]])
def test_what_is_no_text_is_no_value_of_an_answer(value: object) -> None:
    with pytest.raises(ValidationError):
        WhoAmI.model_validate(WHO | {"kind": value})


def test_an_answer_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        WhoAmI.model_validate(WHO).name = "ben"  # type: ignore[misc]


def test_the_schema_of_a_value_names_those_that_are_known() -> None:
    schema = WhoAmI.model_json_schema(mode="serialization")

    assert schema["properties"]["kind"]["$ref"] == "#/$defs/PrincipalKind"
    assert schema["$defs"]["PrincipalKind"]["enum"] == [kind.value for kind in PrincipalKind]


def test_a_body_holds_what_was_given_and_nothing_else() -> None:
    trace_id = uuid4()

    body = body_of(
        DispatchRequest,
        task_id=ID,
        work_type="shell_script",
        parameters={"argv": ("uname", "-a")},
        hints={"agent_id": ID, "required_capabilities": {"gpu": True}},
        trace_id=trace_id,
        max_attempts=None,
    )

    assert body == {
        "task_id": str(ID),
        "work_type": "shell_script",
        "parameters": {"argv": ["uname", "-a"]},
        "hints": {"agent_id": str(ID), "required_capabilities": {"gpu": True}},
        "trace_id": str(trace_id),
    }


def test_a_body_has_the_names_of_the_api() -> None:
    body = body_of(ClaimRequest, worker_id="w", lease_seconds=30, allowed_types=(), claim_id=ID)

    assert body == {"workerId": "w", "leaseSeconds": 30, "allowedTypes": [], "claimId": str(ID)}


def test_the_names_of_python_are_no_names_of_the_api() -> None:
    with pytest.raises(ValidationError, match="workerId"):
        ClaimRequest.model_validate({"worker_id": "w", "leaseSeconds": 30})


@pytest.mark.parametrize(
    ("model", "given", "problem"),
    [
        (DispatchRequest, {"task_id": ID, "work_type": "echo", "priority": 9}, "priority: .* less than or equal to 5"),
        (DispatchRequest, {"task_id": ID, "work_type": "echo", "hints": {"agent": "a"}}, "hints.agent: is not known"),
        (DispatchRequest, {"task_id": ID}, "work_type: Field required"),
        (PauseRequest, {"minutes": 5, "until": datetime(2026, 11, 22, tzinfo=UTC)}, "give minutes or until"),
        (PauseRequest, {"until": datetime(2026, 11, 22)}, "until: .*timezone"),  # noqa: DTZ001
        (IdentityRequest, {"name": "a", "roles": ["king"]}, "roles.0: .*'viewer'"),
        (TokenRequest, {"principal_id": ID, "note": "x" * 201}, "note: .* at most 200"),
        (ClaimRequest, {"worker_id": "w", "lease_seconds": 0}, "lease_seconds: .* greater than or equal to 1"),
    ],
    ids=str,
)
def test_what_would_be_refused_is_named_before_it_is_sent(
    model: type[Request], given: dict[str, object], problem: str
) -> None:
    with pytest.raises(InvalidField, match=problem):
        body_of(model, **given)


def test_a_refusal_does_not_repeat_what_was_given() -> None:
    with pytest.raises(InvalidField) as refused:
        body_of(
            DispatchRequest, task_id=ID, work_type="echo", parameters={"env": {"A": float("nan")}}, idempotent="s3cret"
        )

    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("batch", [1, 1000, "1%", "100%"])
def test_a_batch_is_a_number_of_agents_or_a_percentage(batch: int | str) -> None:
    assert DispatchRequest(task_id=ID, work_type="echo", on=On(all=True), batch=batch).batch == batch


@pytest.mark.parametrize("batch", WRONG_BATCHES)
def test_a_batch_that_is_none_is_refused_with_what_is_allowed(batch: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        DispatchRequest(task_id=ID, work_type="echo", on=On(all=True), batch=batch)

    [problem] = refused.value.errors()
    assert problem["msg"] == "must be a number from 1 to 1000, or a percentage from 1% to 100%"


@pytest.mark.parametrize("number", [True, False, "3", "", None, [3]])
def test_what_only_looks_like_a_number_is_none(number: Any) -> None:
    with pytest.raises(ValidationError, match="priority"):
        DispatchRequest.model_validate({"task_id": ID, "work_type": "echo", "priority": number})
    with pytest.raises(ValidationError, match="leaseSeconds"):
        ClaimRequest.model_validate({"workerId": "w", "leaseSeconds": number})


@pytest.mark.parametrize("truth", [1, 0, "true", "off", None])
def test_what_only_looks_like_a_truth_value_is_none(truth: Any) -> None:
    with pytest.raises(ValidationError, match="idempotent"):
        DispatchRequest.model_validate({"task_id": ID, "work_type": "echo", "idempotent": truth})


@pytest.mark.parametrize("pace", [{"batch": 1}, {"batch": "10%"}, {"stop_after_failures": 1}])
def test_a_pace_needs_the_agents_that_it_is_for(pace: dict[str, Any]) -> None:
    assert DispatchRequest(task_id=ID, work_type="echo", on=On(all=True), **pace)
    with pytest.raises(ValidationError, match="is allowed only with 'on'"):
        DispatchRequest(task_id=ID, work_type="echo", **pace)
