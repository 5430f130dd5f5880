"""A body has one reading: JSON in UTF-8, numbers that are numbers, no name twice, and nothing that is dropped."""

import gzip
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.fuzz.running import Running
from tests.integration.edges.paths import at
from tests.openapi import DOCUMENT, json_body

JSON = {"content-type": "application/json"}


def post(orchestrator: Running, path: str, content: bytes | str, **headers: str) -> requests.Response:
    return requests.post(orchestrator.http + path, data=content, headers=JSON | headers, timeout=30)


def work(**more: Any) -> dict[str, Any]:
    return {"task_id": str(uuid4())} | content_of(**more)


def content_of(**more: Any) -> dict[str, Any]:
    return {"work_type": "shell_script", "parameters": {"script": "true"}} | more


def schema_of(reference: dict[str, Any]) -> dict[str, Any]:
    name = reference.get("$ref", "").rpartition("/")[2]
    return DOCUMENT["components"]["schemas"][name] if name else reference


def loose() -> Iterator[tuple[str, str, object]]:
    """Yield every field of a body that is a number or a truth value, with what only looks like one."""
    for path, operations in DOCUMENT["paths"].items():
        given = json_body(operations.get("post", {}))
        if given is None:
            continue
        for model in map(schema_of, [given, *given.get("anyOf", ())]):
            for name, field in model.get("properties", {}).items():
                kinds = {kind.get("type") for kind in [field, *field.get("anyOf", ())]}
                values = ("3", True) if kinds & {"integer", "number"} else ("off", 1, 0.0) if "boolean" in kinds else ()
                yield from ((path, name, value) for value in values)


@pytest.mark.parametrize(("path", "name", "value"), sorted(loose(), key=str))
def test_every_number_and_truth_value_of_a_body_is_one(
    orchestrator: Running, path: str, name: str, value: object
) -> None:
    answer = post(orchestrator, at(path), json.dumps({name: value}))

    assert answer.status_code == 422
    assert f"body.{name}" in [error["field"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("value", ["5", True])
@pytest.mark.parametrize("name", ["max_duration_seconds", "max_silence_seconds"])
def test_numbers_in_parameters_are_numbers(orchestrator: Running, name: str, value: object) -> None:
    answer = post(orchestrator, "/api/v1/dispatch", json.dumps(work(parameters={"script": "true", name: value})))

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [f"parameters.{name}"]


@pytest.mark.parametrize(
    ("parameters", "field", "allowed"),
    [
        ({"script": "x", "stdin": 5}, "parameters.stdin", "string"),
        ({"script": "x", "env": {"A": [1]}}, "parameters.env.A", "string"),
        ({"argv": ["a", 5]}, "parameters.argv.1", "string"),
        ({"script": "x", "max_duration": 5}, "parameters.max_duration", "max_duration_seconds"),
        ({}, "parameters", "give exactly one of 'argv' and 'script'"),
    ],
    ids=str,
)
def test_a_wrong_parameter_is_named_as_its_sender_wrote_it(
    orchestrator: Running, parameters: dict[str, Any], field: str, allowed: str
) -> None:
    [error] = post(orchestrator, "/api/v1/dispatch", json.dumps(work(parameters=parameters))).json()["errors"]

    assert error["field"] == field
    assert allowed in error["message"]
    assert "Value error" not in error["message"]


def test_a_field_that_is_not_known_is_refused_with_those_that_are(orchestrator: Running) -> None:
    body = json.dumps(work(hints={"agent": "web-1"}))

    [error] = post(orchestrator, "/api/v1/dispatch", body).json()["errors"]

    assert error == {
        "field": "body.hints.agent",
        "message": "is not known here (did you mean 'agent_id'?); "
        "allowed: agent_id, agent_type, preferred, required_capabilities",
    }


@pytest.mark.parametrize("path", ["/api/v1/dispatch/batch", "/api/queue/jobs", "/api/v1/policy/explain"])
def test_a_field_beside_those_of_a_body_is_refused(orchestrator: Running, path: str) -> None:
    answer = post(orchestrator, path, b'{"tasks": [{}], "type": "a", "work_type": "echo", "pirority": 5}')

    assert answer.status_code == 422
    assert "body.pirority" in [error["field"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b'{"work_type": "echo", "task_id": "%s", "work_type": "shell_script"}', "body"),
        (b'{"work_type": "echo", "task_id": "%s", "parameters": {"message": "a", "message": "b"}}', "body.parameters"),
        (
            b'{"task_id": "%s", "work_type": "shell_script", "parameters": {"argv": [{"a": {"b": 1, "b": 1}}]}}',
            "body.parameters.argv.0.a",
        ),
    ],
    ids=str,
)
def test_a_name_twice_in_an_object_is_refused_wherever_it_is(orchestrator: Running, content: bytes, field: str) -> None:
    answer = post(orchestrator, "/api/v1/dispatch", content % str(uuid4()).encode())

    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["field"] == field
    assert "twice" in error["message"]


@pytest.mark.parametrize(
    "path",
    [path for path, operations in DOCUMENT["paths"].items() if json_body(operations.get("post", {})) is not None],
)
def test_every_route_that_takes_a_body_refuses_a_name_twice(orchestrator: Running, path: str) -> None:
    answer = post(orchestrator, at(path), b'{"a": 1, "a": 1}')

    assert (answer.status_code, answer.json()["error_message"]) == (422, "body: has the name 'a' twice")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"{'a': 1}", "line 1, column 2"),
        (b'{"a": 1,\n "b":}', "line 2, column 6"),
        (b'{"a": "\xe9"}', "byte 0xe9 at line 1, byte 8"),
        (b'{"a": NaN}', "NaN"),
        (b"[" * 100_000, "64 levels"),
        (b"1" * 10_000, "digits"),
        (b"{} {}", "line 1, column 4"),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("path", ["/api/v1/dispatch", "/api/v1/policy/explain"])
def test_what_is_not_json_is_refused_with_the_place(
    orchestrator: Running, path: str, content: bytes, where: str
) -> None:
    answer = post(orchestrator, path, content)

    assert (answer.status_code, answer.json()["error_code"]) == (422, 1002)
    assert where in answer.json()["error_message"]


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
)
@pytest.mark.parametrize("path", ["/api/v1/dispatch", "/api/queue/jobs/claim"])
def test_a_body_of_another_type_is_refused_with_the_type_that_is_taken(
    orchestrator: Running, path: str, kind: str
) -> None:
    content = json.dumps(work()).encode()

    answer = requests.post(orchestrator.http + path, data=content, headers={"content-type": kind}, timeout=30)

    assert (answer.status_code, answer.json()["error_code"]) == (415, 1002)
    assert "application/json" in answer.json()["error_message"]
    assert answer.headers["accept"] == "application/json"


def test_a_compressed_body_is_refused_with_the_encoding(orchestrator: Running) -> None:
    content = gzip.compress(json.dumps(work()).encode())

    answer = post(orchestrator, "/api/v1/dispatch", content, **{"content-encoding": "gzip"})

    assert answer.status_code == 415
    assert "gzip" in answer.json()["error_message"]


def test_a_body_where_none_is_taken_is_refused(orchestrator: Running) -> None:
    path = f"/api/v1/cancel/{uuid4()}"

    assert post(orchestrator, path, b'{"reason": "wrong host"}').json()["errors"][0]["field"] == "body"
    assert post(orchestrator, path, b"{}").status_code == 404
    assert post(orchestrator, path, b"").status_code == 404


def test_an_address_that_is_wrong_is_found_before_its_body_is(orchestrator: Running) -> None:
    assert post(orchestrator, "/api/v1/dispach", b"{").status_code == 404
    assert requests.put(f"{orchestrator.http}/api/v1/dispatch", data=b"{", headers=JSON, timeout=30).status_code == 405


@pytest.mark.parametrize(
    "content", [b'{"\\ud800": 1}', b'{"task_id": "\\ud800"}', b'{"hints": {"\\udfff": "\\u0000"}}']
)
def test_text_that_is_not_unicode_is_refused(orchestrator: Running, content: bytes) -> None:
    for path in ("/api/v1/dispatch", "/api/queue/jobs"):
        assert post(orchestrator, path, content).status_code == 422


@pytest.mark.parametrize("until", [5, "5", 1_900_000_000, "2026-11-22"])
def test_a_time_is_a_date_and_a_time(orchestrator: Running, until: object) -> None:
    answer = post(orchestrator, f"/api/v1/agents/{uuid4()}/pause", json.dumps({"until": until}))

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "body.until"


def test_a_body_may_begin_with_a_byte_order_mark(orchestrator: Running) -> None:
    assert post(orchestrator, "/api/v1/dispatch", b"\xef\xbb\xbf" + json.dumps(work()).encode()).status_code == 200


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (
            content_of(parameters={"script": "true", "max_duration_seconds": 10}),
            {"parameters": {"script": "true", "max_duration_seconds": 10.0}},
        ),
        (
            content_of(parameters={"script": "true", "max_duration_seconds": 1e1}),
            {"parameters": {"max_duration_seconds": 10, "script": "true"}},
        ),
        (content_of(), {"parameters": {"script": "true", "shell": "/bin/sh", "env": {}, "stdin": ""}}),
        (content_of(), {"priority": 3.0, "idempotent": False, "max_attempts": 1, "hints": {}, "ordering_key": None}),
        (content_of(hints={"required_capabilities": ["gpu"]}), {"hints": {"required_capabilities": {"gpu": True}}}),
        (content_of(work_type="echo", parameters={}), {"parameters": {"message": ""}}),
        (content_of(expires_after_seconds=60), {"expires_after_seconds": 60.0}),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_the_same_content_in_other_words_is_the_same_task(
    orchestrator: Running, first: dict[str, Any], again: dict[str, Any]
) -> None:
    first = first | {"task_id": str(uuid4())}

    answers = [post(orchestrator, "/api/v1/dispatch", json.dumps(body)) for body in (first, first | again)]

    assert [answer.status_code for answer in answers] == [200, 200], answers[1].text
    assert answers[0].json() == answers[1].json()


def test_other_content_under_the_same_id_is_a_conflict(orchestrator: Running) -> None:
    first = work(parameters={"script": "true", "max_duration_seconds": 10})
    other = first | {"parameters": {"script": "true", "max_duration_seconds": 10.5}}

    answers = [post(orchestrator, "/api/v1/dispatch", json.dumps(body)) for body in (first, other)]

    assert [answer.status_code for answer in answers] == [200, 409]
