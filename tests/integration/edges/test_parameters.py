"""No parameter of a request is dropped: one that a route does not know, or knows once, is refused by its name."""

from typing import Any
from uuid import uuid4

import pytest
import requests
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.fuzz.running import Running
from tests.integration.edges.paths import at
from tests.openapi import DOCUMENT

# A signed path with another query is no signed path, whatever else is wrong with it: tests/unit/orchestrator/artifacts.
SIGNED = "/artifacts/{artifact_id}/{name}"
ROUTES = [
    (method.upper(), path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    if path != SIGNED
]
BAD_PARAMETERS = 4400
ID = "7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11"


def parameters_of(operation: Any, *, several: bool) -> list[str]:
    """Return the query parameters of which a request may have several, or one only."""
    found = []
    for one in operation.get("parameters", ()):
        kinds = [one["schema"], *one["schema"].get("anyOf", ())]
        if one["in"] == "query" and several == any(kind.get("type") == "array" for kind in kinds):
            found.append(one["name"])
    return found


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ROUTES])
def test_every_route_names_a_parameter_that_it_does_not_know(orchestrator: Running, method: str, path: str) -> None:
    answer = requests.request(method, f"{orchestrator.http}{at(path)}?stauts=failed", timeout=30)

    problem = answer.json()
    assert (answer.status_code, problem["error_code"]) == (422, 1002)
    assert [error["field"] for error in problem["errors"]] == ["query.stauts"]


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [(method, path, name) for method, path, found in ROUTES for name in parameters_of(found, several=False)],
)
def test_every_route_names_a_parameter_that_is_there_twice(
    orchestrator: Running, method: str, path: str, name: str
) -> None:
    answer = requests.request(method, f"{orchestrator.http}{at(path)}?{name}=1&{name}=1", timeout=30)

    problem = answer.json()
    assert (answer.status_code, problem["error_code"]) == (422, 1002)
    assert problem["errors"] == [{"field": f"query.{name}", "message": "must be there once"}]


def test_a_parameter_that_is_not_known_is_refused_with_those_that_are(orchestrator: Running) -> None:
    answer = requests.get(f"{orchestrator.http}/ops/executions?limits=5", timeout=30)

    assert answer.json()["error_message"] == "query.limits: is not known here; allowed: limit"


@pytest.mark.parametrize("digits", ["1_0", "%203", "5.0", "+5", "", "true", "٣"])
def test_a_whole_number_in_a_query_is_digits(orchestrator: Running, digits: str) -> None:
    answer = requests.get(f"{orchestrator.http}/api/v1/tasks?limit={digits}", timeout=30)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "query.limit"


@pytest.mark.parametrize("path", ["/api/v1/tasks", "/api/queue/jobs"])
def test_several_statuses_are_a_set(orchestrator: Running, path: str) -> None:
    waiting, cancelled = dispatched(orchestrator), dispatched(orchestrator)
    requests.post(f"{orchestrator.http}/api/v1/cancel/{cancelled}", timeout=30).raise_for_status()
    first = {"/api/v1/tasks": "pending", "/api/queue/jobs": "queued"}[path]

    def listed(*statuses: str) -> set[str]:
        query = [("status", status) for status in statuses]
        answer = requests.get(orchestrator.http + path, params=query, timeout=30)
        return {item.get("task_id", item.get("id")) for item in answer.json()["items"]}

    assert {waiting, cancelled} <= listed(first, "cancelled")
    assert waiting in listed(first, first)
    assert cancelled not in listed(first)


def dispatched(orchestrator: Running) -> str:
    task_id = str(uuid4())
    work = {"task_id": task_id, "work_type": "echo"}
    requests.post(f"{orchestrator.http}/api/v1/dispatch", json=work, timeout=30).raise_for_status()
    return task_id


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/api/v1/ws?tracE_id={ID}", "query.tracE_id"),
        (f"/api/v1/ws?trace_id={ID}&trace_id={ID}", "query.trace_id"),
        ("/api/v1/ws?after=1&after=2", "query.after"),
        (f"/ws/{ID}?task_id={ID}", "query.task_id"),
        (f"/ws/{ID}?afetr=1", "query.afetr"),
        ("/api/v1/ws?after=1_0", "after"),
        ("/api/v1/ws?" + "ä" * 300 + "=1", "query.ä"),
    ],
)
async def test_a_websocket_names_the_parameter_that_it_does_not_take(
    orchestrator: Running, path: str, name: str
) -> None:
    async with connect(f"{orchestrator.websocket}{path}") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == BAD_PARAMETERS
    assert closed.value.rcvd.reason.startswith(name)


async def test_a_websocket_takes_several_kinds_of_events(orchestrator: Running) -> None:
    async with connect(f"{orchestrator.websocket}/api/v1/ws?type=task.dispatched&type=task.completed") as socket:
        assert '"hello"' in str(await socket.recv())
