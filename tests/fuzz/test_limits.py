"""Every door over HTTP has a limit: what is just within it is served, and what is just beyond it costs nothing."""

import json
import socket
from contextlib import suppress
from http.client import HTTPResponse
from typing import Any
from uuid import uuid4

import psutil
import pytest
import requests

from common.json_rules import MAX_DEPTH
from common.work import MAX_PARAMETERS_BYTES
from orchestrator.http.protocol import MOST_HEAD_BYTES, MOST_HEADERS
from tests.fuzz.running import Running
from tests.fuzz.shapes import check_answer

pytestmark = pytest.mark.xdist_group("orchestrator")

MEGABYTE = 1024 * 1024
GROWTH = 40 * MEGABYTE
TOO_LARGE = 431


def _nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def _dispatch(value: str) -> str:
    return f'{{"task_id": "{uuid4()}", "work_type": "echo", "parameters": {value}}}'


def _job(value: str) -> str:
    return f'{{"type": "render", "payload": {value}}}'


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [("/api/v1/dispatch", _dispatch, "parameters.message"), ("/api/queue/jobs", _job, None)],
    ids=["dispatch", "queue"],
)
def test_json_is_taken_down_to_its_depth_and_no_deeper_and_depth_costs_no_memory(
    orchestrator: Running, path: str, body: Any, problem: str | None
) -> None:
    """A dispatch that is not too deep is refused for another reason: there is no work type that takes so deep data."""

    def send(levels: int) -> Any:
        value = f'{{"message": {_nested(levels - 1)}}}'
        answer = requests.post(
            orchestrator.http + path, data=body(value), headers={"content-type": "application/json"}, timeout=60
        )
        check_answer(answer.status_code, answer.headers["content-type"], answer.content)
        return answer.json()

    within, beyond = send(MAX_DEPTH), send(MAX_DEPTH + 1)
    assert "status" in within if problem is None else [problem] == [one["field"] for one in within["errors"]]
    assert (beyond["status"], "deeper than 64 levels" in beyond["detail"]) == (422, True)
    before = psutil.Process().memory_info().rss
    assert {send(200_000)["status"] for _ in range(10)} == {422}
    assert psutil.Process().memory_info().rss - before < GROWTH


def _head(*lines: bytes, path: bytes = b"/health") -> bytes:
    return b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: localhost", *lines, b"", b""])


def _exchange(orchestrator: Running, sent: bytes) -> int:
    host, port = orchestrator.address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        opened.sendall(sent)
        answer = HTTPResponse(opened)
        answer.begin()
        check_answer(answer.status, answer.getheader("content-type", ""), answer.read())
        return answer.status


def test_so_many_headers_are_read_and_one_more_is_refused(orchestrator: Running) -> None:
    lines = [b"X-%d: y" % number for number in range(MOST_HEADERS - 1)]

    assert _exchange(orchestrator, _head(*lines)) == 200
    assert _exchange(orchestrator, _head(*lines, b"X-One: more")) == TOO_LARGE


def test_a_url_and_headers_are_read_up_to_their_limit_and_not_beyond(orchestrator: Running) -> None:
    room = MOST_HEAD_BYTES - len(b"Host" + b"localhost") - len(b"/health?")

    # It is read to its end, where nothing knows a parameter of that name.
    assert _exchange(orchestrator, _head(path=b"/health?" + b"q" * room)) == 422
    assert _exchange(orchestrator, _head(path=b"/health?" + b"q" * (room + 1))) == TOO_LARGE
    value = MOST_HEAD_BYTES - len(b"Host" + b"localhost") - len(b"/health") - len(b"X")
    assert _exchange(orchestrator, _head(b"X: " + b"y" * value)) == 200
    assert _exchange(orchestrator, _head(b"X: " + b"y" * (value + 1))) == TOO_LARGE


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /health HTTP/1.1\r\nX: ",
        b"GET /",
        b"POST /api/v1/dispatch HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX: ",
    ],
    ids=["header", "url", "trailer"],
)
def test_a_head_that_never_ends_is_cut_off_in_flat_memory(orchestrator: Running, begin: bytes) -> None:
    before, sent = psutil.Process().memory_info().rss, 0
    host, port = orchestrator.address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        opened.sendall(begin)
        with suppress(ConnectionError):
            while sent < 200 * MEGABYTE:
                sent += opened.send(b"x" * MEGABYTE)

    assert sent < 50 * MEGABYTE
    assert psutil.Process().memory_info().rss - before < GROWTH


@pytest.mark.parametrize(("count", "status"), [(1000, 200), (1001, 422)])
def test_a_batch_of_the_largest_size_is_taken_and_a_larger_one_is_not(
    orchestrator: Running, count: int, status: int
) -> None:
    tasks = [{"task_id": str(uuid4()), "work_type": "echo", "parameters": {}} for _ in range(count)]

    answer = requests.post(
        orchestrator.http + "/api/v1/dispatch/batch",
        data=json.dumps({"tasks": tasks}),
        headers={"content-type": "application/json"},
        timeout=60,
    )

    assert answer.status_code == status, answer.text[:500]


@pytest.mark.parametrize(("path", "created"), [("/api/v1/dispatch", 200), ("/api/queue/jobs", 201)])
@pytest.mark.parametrize("more", [0, 1])
def test_parameters_are_taken_up_to_their_size_and_not_beyond(
    orchestrator: Running, path: str, created: int, more: int
) -> None:
    def body(parameters: dict[str, Any]) -> dict[str, Any]:
        if path == "/api/queue/jobs":
            return {"type": "render", "payload": parameters}
        return {"task_id": str(uuid4()), "work_type": "shell_script", "parameters": parameters}

    half = "x" * (MAX_PARAMETERS_BYTES // 2 - 1000)
    parameters = {"script": half, "stdin": half, "env": {"FILL": ""}}
    parameters["env"] = {
        "FILL": "y" * (MAX_PARAMETERS_BYTES - len(json.dumps(parameters, separators=(",", ":"))) + more)
    }

    answer = requests.post(orchestrator.http + path, json=body(parameters), timeout=60)

    assert answer.status_code == (422 if more else created), answer.text[:300]
    assert not more or str(MAX_PARAMETERS_BYTES) in answer.text
