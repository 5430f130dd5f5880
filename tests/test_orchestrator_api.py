"""The contract of the REST API, against the app with a faked service: what callers send and what they are answered."""

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock, create_autospec
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.canonical import canonical_json
from common.lifecycle import Change, Status
from common.messages import AgentStatus
from common.rest.why import BlockerKind
from orchestrator.api import get_orchestrator_service
from orchestrator.database.pages import Listing
from orchestrator.fan_outs.api import parts_of
from orchestrator.http import limits
from orchestrator.main import create_app
from orchestrator.registry.model import Agent
from orchestrator.service import OrchestratorService
from orchestrator.tasks.dispatch import IdempotencyConflict, UnknownWorkType
from orchestrator.tasks.model import Identity, Task
from orchestrator.tasks.service import TaskHasEnded, TaskNotFound
from orchestrator.why.model import AgentRef, Blocker, Explanation

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
TASK_ID = UUID("7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11")
REQUEST_ID = uuid4()
TRACE_ID = uuid4()


def make_task(**values: Any) -> Task:
    given: dict[str, Any] = {
        "task_id": TASK_ID,
        "request_id": REQUEST_ID,
        "trace_id": TRACE_ID,
        "work_type": "shell_script",
        "agent_type": "infra",
        "parameters": {},
        "hints": {},
        "priority": 3,
        "idempotent": False,
        "max_attempts": 1,
        "status": Status.COMPLETED,
        "attempt": 1,
        "unstarted": 0,
        "agent_id": uuid4(),
        "claim_id": None,
        "lease_expires_at": None,
        "progress": "",
        "output": "",
        "error_message": None,
        "error_code": None,
        "exit_code": 0,
        "duration_ms": 12,
        "created_at": NOW,
        "updated_at": NOW,
        "started_at": NOW,
        "finished_at": NOW,
    }
    return Task(**{**given, **values})


def make_agent(**values: Any) -> Agent:
    given: dict[str, Any] = {
        "agent_id": uuid4(),
        "name": "host-1",
        "agent_type": "infra",
        "status": AgentStatus.ONLINE,
        "hostname": "host-1",
        "version": "0.1.0",
        "work_types": ["echo"],
        "slots": 4,
        "current_tasks": [],
        "resources": {"cpu_percent": 3.0, "memory_percent": 20.0},
        "started_at": NOW,
        "last_heartbeat_at": NOW,
    }
    return Agent(**{**given, **values})


@pytest.fixture(scope="module")
def faked() -> AsyncMock:
    """The service without anything that it says: what it looks like is found out once."""
    fake: AsyncMock = create_autospec(OrchestratorService, instance=True)
    return fake


@pytest.fixture(scope="module")
def app(faked: AsyncMock) -> FastAPI:
    made = create_app()
    made.dependency_overrides[get_orchestrator_service] = lambda: faked
    return made


@pytest.fixture
def service(faked: AsyncMock) -> AsyncMock:
    fake = faked
    fake.reset_mock(return_value=True, side_effect=True)
    fake.dispatch_work.return_value = Identity(TASK_ID, REQUEST_ID, TRACE_ID, b"")
    fake.submit_all.side_effect = lambda tasks: [fake.dispatch_work.return_value for _ in tasks]
    fake.get_task_status.return_value = (make_task(), "hello\n")
    fake.list_agents.return_value = []
    fake.list_tasks.return_value = Listing([], has_more=False)
    return fake


@pytest.fixture
def client(app: FastAPI, service: AsyncMock) -> TestClient:
    # Without `with`: the lifespan, which connects to real servers, does not run.
    return TestClient(app, raise_server_exceptions=False)


def body(**values: Any) -> dict[str, Any]:
    return {"task_id": str(TASK_ID), "work_type": "shell_script", "parameters": {"argv": ["true"]}, **values}


# POST /api/v1/dispatch


def test_dispatch_endpoint(client: TestClient, service: AsyncMock) -> None:
    client.post("/api/v1/dispatch", json=body(priority=5, request_id=str(REQUEST_ID)))

    assert service.dispatch_work.await_args.args == (TASK_ID, "shell_script", {"argv": ["true"]}, 5)
    assert service.dispatch_work.await_args.kwargs["request_id"] == REQUEST_ID


def test_dispatch_accepts_valid_request(client: TestClient) -> None:
    answer = client.post("/api/v1/dispatch", json=body())

    assert answer.status_code == 200
    assert answer.json()["status"] == "pending"


def test_dispatch_returns_trace_id_and_request_id(client: TestClient) -> None:
    answer = client.post("/api/v1/dispatch", json=body()).json()

    assert answer == {
        "trace_id": str(TRACE_ID),
        "request_id": str(REQUEST_ID),
        "task_id": str(TASK_ID),
        "status": "pending",
    }


def test_dispatch_requires_task_id(client: TestClient, service: AsyncMock) -> None:
    answer = client.post("/api/v1/dispatch", json={"work_type": "echo"})

    assert answer.status_code == 422
    assert answer.json()["error_code"] == 1002
    assert answer.json()["errors"][0]["field"] == "body.task_id"
    service.dispatch_work.assert_not_awaited()


def test_dispatch_requires_work_type(client: TestClient) -> None:
    answer = client.post("/api/v1/dispatch", json={"task_id": str(TASK_ID)})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "body.work_type"


@pytest.mark.parametrize("priority", [0, 6, -1, 2.5, "high"])
def test_dispatch_validates_priority_range_1_to_5(client: TestClient, priority: object) -> None:
    answer = client.post("/api/v1/dispatch", json=body(priority=priority))

    assert answer.status_code == 422
    assert answer.json()["error_code"] == 1002
    assert answer.json()["errors"][0]["field"] == "body.priority"


def test_dispatch_answers_1001_for_an_unknown_work_type(client: TestClient, service: AsyncMock) -> None:
    service.dispatch_work.side_effect = UnknownWorkType("juggling", ["echo", "shell_script"])

    answer = client.post("/api/v1/dispatch", json=body(work_type="juggling"))

    assert (answer.status_code, answer.json()["error_code"]) == (400, 1001)
    assert "echo, shell_script" in answer.json()["error_message"]


def test_dispatch_answers_1003_when_an_id_is_taken_by_other_content(client: TestClient, service: AsyncMock) -> None:
    service.dispatch_work.side_effect = IdempotencyConflict("task_id", TASK_ID, TASK_ID)

    answer = client.post("/api/v1/dispatch", json=body())

    assert (answer.status_code, answer.json()["error_code"]) == (409, 1003)


def test_dispatch_refuses_a_field_that_it_does_not_know(client: TestClient) -> None:
    answer = client.post("/api/v1/dispatch", json=body(priorty=5))

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "body.priorty"


def test_dispatch_hands_on_keys_and_the_limit_on_waiting(client: TestClient, service: AsyncMock) -> None:
    keys = {"ordering_key": "web-1", "concurrency_key": "pulls", "concurrency_limit": 3}

    client.post("/api/v1/dispatch", json=body(**keys, expires_after_seconds=1.5))

    given = service.dispatch_work.await_args.kwargs
    assert {name: given[name] for name in keys} == keys
    assert given["expires_after"] == timedelta(seconds=1.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ordering_key", ""),
        ("ordering_key", "k" * 201),
        ("ordering_key", "nul\x00"),
        ("ordering_key", 7),
        ("concurrency_key", ""),
        ("concurrency_limit", 0),
        ("concurrency_limit", 1001),
        ("concurrency_limit", 1.5),
        ("expires_after_seconds", 0),
        ("expires_after_seconds", -1),
        ("expires_after_seconds", 30 * 86_400 + 1),
        ("expires_after_seconds", "soon"),
    ],
)
def test_dispatch_names_the_key_or_limit_that_is_not_usable(
    client: TestClient, service: AsyncMock, field: str, value: object
) -> None:
    answer = client.post("/api/v1/dispatch", json=body(**{field: value}))

    assert (answer.status_code, answer.json()["error_code"]) == (422, 1002)
    assert answer.json()["errors"][0]["field"] == f"body.{field}"
    service.dispatch_work.assert_not_awaited()


def test_a_key_that_is_too_long_is_counted_in_characters(client: TestClient) -> None:
    answer = client.post("/api/v1/dispatch", json=body(ordering_key="k" * 201))

    assert answer.json()["errors"][0]["message"] == "String should have at most 200 characters"


# POST /api/v1/dispatch/batch


def test_a_bad_item_of_a_batch_does_not_keep_the_others_back(client: TestClient) -> None:
    answer = client.post("/api/v1/dispatch/batch", json={"tasks": [body(), {"work_type": "echo"}, body()]})

    assert answer.status_code == 200
    assert [item["status_code"] for item in answer.json()["results"]] == [200, 422, 200]
    assert answer.json()["results"][1]["error"]["errors"][0]["field"] == "task_id"


def test_the_good_items_of_a_batch_are_submitted_together_and_answered_in_their_order(
    client: TestClient, service: AsyncMock
) -> None:
    ids = [uuid4() for _ in range(3)]
    service.submit_all.side_effect = None
    service.submit_all.return_value = [
        Identity(ids[0], REQUEST_ID, TRACE_ID, b""),
        IdempotencyConflict("task_id", ids[1], ids[1]),
        Identity(ids[2], REQUEST_ID, TRACE_ID, b""),
    ]
    good = [body(task_id=str(one)) for one in ids]

    answer = client.post("/api/v1/dispatch/batch", json={"tasks": [good[0], body(priority=9), *good[1:]]})

    results = answer.json()["results"]
    assert [(item["index"], item["status_code"]) for item in results] == [(0, 200), (1, 422), (2, 409), (3, 200)]
    assert [item["task"] and item["task"]["task_id"] for item in results] == [str(ids[0]), None, None, str(ids[2])]
    assert results[2]["error"]["error_code"] == 1003
    [submitted] = service.submit_all.await_args.args
    assert len(submitted) == 3
    service.submit_all.assert_awaited_once()


def test_an_item_that_the_service_refuses_is_answered_alone(client: TestClient, service: AsyncMock) -> None:
    service.task_of.side_effect = [UnknownWorkType("juggling", ["echo"]), object()]

    answer = client.post("/api/v1/dispatch/batch", json={"tasks": [body(work_type="juggling"), body()]})

    assert [item["status_code"] for item in answer.json()["results"]] == [400, 200]
    assert answer.json()["results"][0]["error"]["error_code"] == 1001


def test_a_fan_out_in_a_batch_is_refused_by_its_item(client: TestClient) -> None:
    answer = client.post("/api/v1/dispatch/batch", json={"tasks": [body(on={"all": True}), body()]})

    assert [item["status_code"] for item in answer.json()["results"]] == [422, 200]
    assert answer.json()["results"][0]["error"]["errors"][0]["field"] == "on"


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_batch_that_the_database_cannot_store_is_answered_with_503(
    client: TestClient, service: AsyncMock, is_whole: bool
) -> None:
    away = ConnectionRefusedError("away")
    service.submit_all.side_effect = away if is_whole else None
    service.submit_all.return_value = [service.dispatch_work.return_value, away]

    answer = client.post("/api/v1/dispatch/batch", json={"tasks": [body(), body()]})

    assert (answer.status_code, answer.json()["error_code"]) == (503, 9003)
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_holds_1_to_1000_items(client: TestClient, count: int) -> None:
    answer = client.post("/api/v1/dispatch/batch", json={"tasks": [body()] * count})

    assert (answer.status_code, answer.json()["error_code"]) == (422, 1002)


# GET /api/v1/tasks/{task_id}/why


def test_why_answers_what_is_in_the_way_and_leaves_out_what_says_nothing(
    client: TestClient, service: AsyncMock
) -> None:
    busy = Blocker(BlockerKind.SLOTS_BUSY, "All 2 slots are taken.", agents=[AgentRef(REQUEST_ID, "host-1", 2, 2)])
    queued = Blocker(BlockerKind.QUEUED, "Next.", ahead=0)
    service.explain_wait.return_value = Explanation(TASK_ID, Status.PENDING, waiting=True, blockers=[busy, queued])

    answer = client.get(f"/api/v1/tasks/{TASK_ID}/why")

    assert answer.status_code == 200
    named = [{"agent_id": str(REQUEST_ID), "hostname": "host-1", "running": 2, "slots": 2}]
    assert answer.json() == {
        "task_id": str(TASK_ID),
        "status": "pending",
        "waiting": True,
        "blockers": [
            {"kind": "slots_busy", "message": "All 2 slots are taken.", "agents": named},
            {"kind": "queued", "message": "Next.", "ahead": 0},
        ],
    }


def test_why_answers_2001_for_a_task_that_nobody_dispatched(client: TestClient, service: AsyncMock) -> None:
    service.explain_wait.side_effect = TaskNotFound(TASK_ID)

    answer = client.get(f"/api/v1/tasks/{TASK_ID}/why")

    assert (answer.status_code, answer.json()["error_code"]) == (404, 2001)


# GET /api/v1/status/{task_id}


def test_status_returns_task_info(client: TestClient) -> None:
    answer = client.get(f"/api/v1/status/{TASK_ID}")

    assert answer.status_code == 200
    found = answer.json()
    assert (found["task_id"], found["status"], found["exit_code"]) == (str(TASK_ID), "completed", 0)
    assert (found["output"], found["duration_ms"]) == ("hello\n", 12)


def test_status_returns_404_for_missing_task(client: TestClient, service: AsyncMock) -> None:
    service.get_task_status.side_effect = TaskNotFound(TASK_ID)

    answer = client.get(f"/api/v1/status/{TASK_ID}")

    assert (answer.status_code, answer.json()["error_code"]) == (404, 2001)


def test_status_returns_trace_id_for_correlation(client: TestClient) -> None:
    assert client.get(f"/api/v1/status/{TASK_ID}").json()["trace_id"] == str(TRACE_ID)


def test_status_returns_timestamps(client: TestClient) -> None:
    found = client.get(f"/api/v1/status/{TASK_ID}").json()

    assert datetime.fromisoformat(found["created_at"]) == NOW
    assert datetime.fromisoformat(found["updated_at"]) == NOW


# GET /api/v1/tasks


def test_tasks_are_listed_a_page_at_a_time(client: TestClient, service: AsyncMock) -> None:
    service.list_tasks.return_value = Listing([make_task(task_id=uuid4()) for _ in range(2)], has_more=True)
    first = client.get("/api/v1/tasks?limit=2").json()

    service.list_tasks.return_value = Listing([], has_more=False)
    client.get("/api/v1/tasks", params={"cursor": first["next_cursor"]})

    assert len(first["items"]) == 2
    assert service.list_tasks.await_args.args[0].before == (NOW, UUID(first["items"][-1]["task_id"]))


@pytest.mark.parametrize("cursor", ["x", "%00", "aGVsbG8", "AAAA", "é"])
def test_a_cursor_that_nobody_gave_is_refused(client: TestClient, cursor: str) -> None:
    answer = client.get("/api/v1/tasks", params={"cursor": cursor})

    assert (answer.status_code, answer.json()["error_code"]) == (422, 1002)
    assert answer.json()["errors"][0]["field"] == "cursor"


# GET /api/v1/agents


def test_list_agents_returns_all_agents(client: TestClient, service: AsyncMock) -> None:
    service.list_agents.return_value = [make_agent(), make_agent(status=AgentStatus.OFFLINE)]

    answer = client.get("/api/v1/agents")

    assert answer.status_code == 200
    assert [agent["status"] for agent in answer.json()] == ["online", "offline"]
    assert answer.json()[0]["resources"]["cpu_percent"] == 3.0


def test_list_agents_filters_by_agent_type(client: TestClient, service: AsyncMock) -> None:
    client.get("/api/v1/agents?agent_type=desktop")

    service.list_agents.assert_awaited_once_with(agent_type="desktop", status=None, with_gone=False)


def test_list_agents_filters_by_status(client: TestClient, service: AsyncMock) -> None:
    client.get("/api/v1/agents?status=busy")

    service.list_agents.assert_awaited_once_with(agent_type=None, status=AgentStatus.BUSY, with_gone=False)


def test_list_agents_refuses_a_status_that_does_not_exist(client: TestClient) -> None:
    answer = client.get("/api/v1/agents?status=sleepy")

    assert (answer.status_code, answer.json()["error_code"]) == (422, 1002)
    assert "online" in answer.json()["error_message"]


# POST /api/v1/cancel/{task_id}


def test_cancel_cancels_pending_task(client: TestClient, service: AsyncMock) -> None:
    answer = client.post(f"/api/v1/cancel/{TASK_ID}")

    assert answer.status_code == 200
    assert answer.json() == {"task_id": str(TASK_ID), "status": "cancelled"}
    service.cancel_task.assert_awaited_once_with(TASK_ID, by="anybody")


def test_cancel_rejects_completed_task(client: TestClient, service: AsyncMock) -> None:
    service.cancel_task.side_effect = TaskHasEnded(Status.COMPLETED, Change.CANCEL)

    answer = client.post(f"/api/v1/cancel/{TASK_ID}")

    assert (answer.status_code, answer.json()["error_code"]) == (400, 2002)


def test_cancel_returns_404_for_missing_task(client: TestClient, service: AsyncMock) -> None:
    service.cancel_task.side_effect = TaskNotFound(TASK_ID)

    answer = client.post(f"/api/v1/cancel/{TASK_ID}")

    assert (answer.status_code, answer.json()["error_code"]) == (404, 2001)


# Errors


def test_error_response_has_error_code(client: TestClient) -> None:
    answer = client.get("/api/v1/status/not-a-uuid")

    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error_code"] == 1002


def test_error_response_has_error_message(client: TestClient, service: AsyncMock) -> None:
    service.get_task_status.side_effect = TaskNotFound(TASK_ID)

    found = client.get(f"/api/v1/status/{TASK_ID}").json()

    assert found["error_message"] == found["detail"] == f"No task has the id {TASK_ID}."
    assert (found["title"], found["status"]) == ("Not Found", 404)


def test_error_response_includes_trace_id(client: TestClient) -> None:
    trace_id = str(uuid4())

    answer = client.post("/api/v1/dispatch", json={}, headers={"X-Trace-Id": trace_id})

    assert answer.json()["trace_id"] == trace_id
    assert answer.headers["x-trace-id"] == trace_id


def test_an_unexpected_error_is_answered_in_the_same_shape_and_tells_no_secrets(
    client: TestClient, service: AsyncMock
) -> None:
    service.get_task_status.side_effect = RuntimeError("password=hunter2")

    answer = client.get(f"/api/v1/status/{TASK_ID}")

    assert (answer.status_code, answer.json()["error_code"]) == (500, 9000)
    assert "hunter2" not in answer.text


def test_a_bad_body_is_never_repeated_in_the_answer(client: TestClient) -> None:
    answer = client.post("/api/v1/dispatch", json=body(priority="hunter2", task_id="hunter2"))

    assert answer.status_code == 422
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"task_id": NaN}',
        b'{"parameters": {"x": NaN}}',
        b'{"parameters": {"x": 1e999}}',
        b'{"parameters": {"x": ' + b"9" * 5000 + b"}}",
        b'{"parameters": {"x": "\\u0000"}}',
        b'{"parameters": {"x": "\\ud800"}}',
        b'{"parameters": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}",
        b"[" * 100_000,
    ],
    ids=lambda content: str(content[:24]),
)
def test_a_body_that_cannot_be_used_is_answered_and_never_a_500(client: TestClient, content: bytes) -> None:
    answer = client.post("/api/v1/dispatch", content=content, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422
    assert answer.json()["error_code"] == 1002


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('{"x": NaN}', "NaN"),
        ('{"x": [1e999]}', "NaN"),
        ('{"x": "a\\u0000b"}', "NUL"),
        ('{"x": "\\ud800"}', "surrogate"),
        ('{"x": 9007199254740992}', "numbers beyond"),
        ("{" + '"a":{' * 70 + '"b":1' + "}" * 70 + "}", "nested"),
    ],
)
def test_parameters_that_cannot_be_stored_are_refused_with_the_reason(
    client: TestClient, value: str, problem: str
) -> None:
    content = f'{{"task_id": "{TASK_ID}", "work_type": "custom", "parameters": {value}}}'

    answer = client.post("/api/v1/dispatch", content=content, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["error_code"]) == (422, 1002)
    assert problem in answer.json()["error_message"]


def test_a_body_larger_than_allowed_is_refused(service: AsyncMock, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client of the tests does not say that it has hung up, which is what the app waits for.
    monkeypatch.setattr(limits, "DISCARD_SECONDS", 0.1)
    app = create_app(max_body_bytes=2000)
    app.dependency_overrides[get_orchestrator_service] = lambda: service
    client = TestClient(app, headers={"content-type": "application/json"})

    fits = client.post("/api/v1/dispatch", content=b" " * 1998 + b"{}")
    fits_streamed = client.post("/api/v1/dispatch", content=iter((b" " * 1998, b"{}")))
    announced = client.post("/api/v1/dispatch", content=b" " * 2001)
    streamed = client.post("/api/v1/dispatch", content=iter((b" " * 2000, b" ")))

    assert (fits.status_code, fits_streamed.status_code) == (422, 422)
    assert (announced.status_code, announced.json()["error_code"]) == (413, 1002)
    assert (streamed.status_code, streamed.json()["error_code"]) == (413, 1002)


def test_a_path_that_does_not_exist_is_answered_in_the_same_shape(client: TestClient) -> None:
    missing, wrong = client.get("/api/v1/nothing"), client.delete("/api/v1/agents")

    assert (missing.status_code, missing.json()["error_code"]) == (404, 9004)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")


def test_every_endpoint_is_described_with_an_example_or_a_summary(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()

    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), f"{method} {path}"
            assert operation.get("description"), f"{method} {path}"
    assert schema["components"]["schemas"]["DispatchRequest"]["examples"]


# GET /api/v1/fan-outs/{fan_out_id}


def test_the_results_of_a_fan_out_are_left_out_when_they_are_too_large_together() -> None:
    result = {"text": "y" * 1000}
    tasks = [make_task(agent_id=UUID(int=number), result=result) for number in range(4)]

    shown = list(parts_of(tasks, most_bytes=2 * len(canonical_json(result))))

    assert [part.result for part in shown] == [result, result, None, None]
    assert [part.result_left_out for part in shown] == [False, False, True, True]
