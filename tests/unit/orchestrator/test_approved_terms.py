"""What people approve: every field of a dispatch that decides what runs, how often, when, where and until when."""

import hashlib
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from common.policy.model import ApprovalDemand, Effect, Ruling
from common.rest.approvals import ApprovalRequest
from common.rest.tasks import DispatchRequest
from orchestrator.approvals.model import approved_digest
from orchestrator.tasks.dispatch import asked_terms
from orchestrator.tasks.model import NewTask
from tests.factories import BOB, make_new_task

DEMAND = ApprovalDemand()

# Each field of a dispatch that is part of what people approve, with another value than that of `make_new_task`.
APPROVED: dict[str, Any] = {
    "work_type": "shell_script",
    "agent_type": "desktop",
    "parameters": {"message": "rm"},
    "hints": {"required_capabilities": {"zone": "eu"}},
    "ruling": Ruling("anything", "2-other", Effect.WRITE, DEMAND),
    "priority": 5,
    "precedence": 7,
    "idempotent": True,
    "max_attempts": 20,
    "ordering_key": "web-1",
    "concurrency_key": "pulls",
    "concurrency_limit": 4,
    "stop_after": 2,
    "expires_after": timedelta(minutes=2),
}
# The others, and why people need not see them.
NOT_APPROVED: dict[str, tuple[Any, str]] = {
    "task_id": (uuid4(), "names the task; the approval is bound to it when it is used"),
    "request_id": (uuid4(), "tells a repeated dispatch"),
    "trace_id": (uuid4(), "correlates"),
    "approval_id": (uuid4(), "names the approval"),
    "rerun_of": (uuid4(), "names the task that is repeated; the content stands in the new one"),
    "requested_by": (BOB, "is shown and compared by itself: only who asked may use an approval"),
    "name": ("nightly", "is for people, in lists"),
    "pause": (timedelta(minutes=1), "is what the plan of its run says of all rounds of a loop"),
    "labels": ({"team": "web"}, "find a task again; where it runs, the hints say"),
}
# Work by its digest, its terms, the text that people approve of both, written by hand, and the digest of that.
TEXTS: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "302fbb81a7cb61527dae1bf9b9f92ac730b45fbba66c93c47b57b3f257a8e934",
        {},
        (
            '{"terms":{"concurrency_key":null,"concurrency_limit":null,"expires_after_seconds":null,"idempotent":false,'
            '"max_attempts":1,"ordering_key":null,"precedence":null,"priority":3,"stop_after_failures":null},'
            '"work":"302fbb81a7cb61527dae1bf9b9f92ac730b45fbba66c93c47b57b3f257a8e934"}'
        ),
        "6990fb5b911b03249f11a8d95286174afa58fd9efebacb222aa170944eebec54",
    ),
    (
        "03b3696dab2e9c7f5db8a4a54030f8d6572284e66fe3aa3e2601c377b1e7044c",
        {
            "priority": 5,
            "precedence": 7,
            "idempotent": True,
            "max_attempts": 2,
            "ordering_key": "web-1",
            "concurrency_key": "pulls",
            "concurrency_limit": 4,
            "stop_after": 3,
            "expires_after": timedelta(seconds=90, milliseconds=500),
        },
        (
            '{"terms":{"concurrency_key":"pulls","concurrency_limit":4,"expires_after_seconds":90.5,"idempotent":true,'
            '"max_attempts":2,"ordering_key":"web-1","precedence":7,"priority":5,"stop_after_failures":3},'
            '"work":"03b3696dab2e9c7f5db8a4a54030f8d6572284e66fe3aa3e2601c377b1e7044c"}'
        ),
        "05b426e12dacbc47b25333cddf43f9761e5790e39cf9716652bf63592fd40487",
    ),
]
# The fields of the REST request, by those that they become.
REST: dict[str, str] = {
    "expires_after_seconds": "expires_after",
    "stop_after_failures": "stop_after",
    "on": "hints",
    "batch": "concurrency_limit",
}
# With `on` each agent's task is asked about by itself: nothing of a fan-out can be asked about beforehand.
ONLY_WITH_ON = {"on", "batch", "stop_after_failures"}


def digest_of(task: NewTask) -> bytes:
    return approved_digest(task.work_digest, task.terms)


def test_each_field_of_a_task_is_approved_or_said_not_to_be() -> None:
    assert {field.name for field in fields(NewTask)} == APPROVED.keys() | NOT_APPROVED.keys()
    assert not APPROVED.keys() & NOT_APPROVED.keys()


def test_each_field_of_a_dispatch_becomes_one_of_a_task() -> None:
    known = {field.name for field in fields(NewTask)}

    assert {REST.get(name, name) for name in DispatchRequest.model_fields} <= known


def test_whatever_is_approved_can_be_asked_about_beforehand() -> None:
    asked = {name for name in DispatchRequest.model_fields if REST.get(name, name) in APPROVED} - ONLY_WITH_ON

    assert asked == ApprovalRequest.model_fields.keys() - {"note", "trace_id"}


@pytest.mark.parametrize(("work", "terms", "text", "digest"), TEXTS, ids=["plain", "every term"])
def test_the_digest_of_what_people_approve_is_that_of_exactly_this_text(
    work: str, terms: dict[str, Any], text: str, digest: str
) -> None:
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert approved_digest(bytes.fromhex(work), make_new_task(**terms).terms).hex() == digest


@pytest.mark.parametrize("name", APPROVED)
def test_another_value_of_what_is_approved_is_another_approval(name: str) -> None:
    task = make_new_task()

    assert digest_of(replace(task, **{name: APPROVED[name]})) != digest_of(task)


@pytest.mark.parametrize("name", NOT_APPROVED)
def test_another_value_of_what_is_not_approved_is_the_same_approval(name: str) -> None:
    task = make_new_task()

    assert digest_of(replace(task, **{name: NOT_APPROVED[name][0]})) == digest_of(task)


def test_a_question_beforehand_has_the_terms_of_the_dispatch_that_is_to_use_it() -> None:
    asked: dict[str, Any] = {
        "priority": 5,
        "idempotent": True,
        "ordering_key": "web-1",
        "concurrency_key": "pulls",
        "concurrency_limit": 4,
        "expires_after": timedelta(minutes=2),
    }

    assert asked_terms(**asked) == make_new_task(**asked, max_attempts=3).terms
    assert asked_terms() == make_new_task().terms
    assert asked_terms()["max_attempts"] == 1
