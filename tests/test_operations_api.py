"""The contract of the REST API for people who run Chiffon, against the app with faked services."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock, create_autospec
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.broker.base import BrokerUnavailable
from common.errors import InvalidField
from common.lifecycle import Status
from common.rest.dead_letters import DeadLetterKind, DeadLetterState
from orchestrator.dead_letters.api import get_dead_letters
from orchestrator.dead_letters.service import DeadLetterIsSettled, DeadLetterNotFound, DeadLetterService
from orchestrator.identities.model import ANYBODY
from orchestrator.main import create_app
from orchestrator.registry.api import get_fleet
from orchestrator.registry.fleet import AgentNotFound, FleetService
from orchestrator.tasks.api import get_task_control
from orchestrator.tasks.control import TaskControl, TaskHasNotEnded
from orchestrator.tasks.dispatch import IdempotencyConflict
from orchestrator.tasks.model import Identity
from orchestrator.tasks.service import CancelledTrace, TaskNotFound, TraceNotFound
from tests.test_orchestrator_api import NOW, make_agent, make_task
from tests.unit.orchestrator.test_dead_letter_rules import make_letter

AGENT_ID, TASK_ID, TRACE_ID = uuid4(), uuid4(), uuid4()


@dataclass(frozen=True)
class Faked:
    """The services without anything that they say: what they look like is found out once."""

    fleet: AsyncMock = field(default_factory=lambda: create_autospec(FleetService, instance=True))
    control: AsyncMock = field(default_factory=lambda: create_autospec(TaskControl, instance=True))
    letters: AsyncMock = field(default_factory=lambda: create_autospec(DeadLetterService, instance=True))


@pytest.fixture(scope="module")
def faked() -> Faked:
    return Faked()


@pytest.fixture(scope="module")
def app(faked: Faked) -> FastAPI:
    made = create_app()
    made.dependency_overrides[get_fleet] = lambda: faked.fleet
    made.dependency_overrides[get_task_control] = lambda: faked.control
    made.dependency_overrides[get_dead_letters] = lambda: faked.letters
    return made


@pytest.fixture
def fleet(faked: Faked) -> AsyncMock:
    fake = _silenced(faked.fleet)
    fake.find.return_value = AGENT_ID
    for order in (fake.pause, fake.drain, fake.resume):
        order.return_value = make_agent(agent_id=AGENT_ID)
    return fake


@pytest.fixture
def control(faked: Faked) -> AsyncMock:
    fake = _silenced(faked.control)
    fake.cancel_trace.return_value = CancelledTrace(TRACE_ID, [TASK_ID], already_ended=2)
    fake.rerun.return_value = Identity(TASK_ID, uuid4(), TRACE_ID, b"")
    return fake


@pytest.fixture
def letters(faked: Faked) -> AsyncMock:
    fake = _silenced(faked.letters)
    fake.newest.return_value = []
    fake.get.return_value = make_letter()
    return fake


@pytest.fixture
def client(app: FastAPI, fleet: AsyncMock, control: AsyncMock, letters: AsyncMock) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


def _silenced(fake: AsyncMock) -> AsyncMock:
    """Return a fake that has forgotten what it was asked and what it says."""
    fake.reset_mock(return_value=True, side_effect=True)
    return fake


# POST /api/v1/agents/{agent_id}/pause|drain|resume


def test_a_pause_lasts_5_minutes_unless_it_is_said_how_long(client: TestClient, fleet: AsyncMock) -> None:
    fleet.pause.return_value = make_agent(paused_until=NOW, paused_by="anybody", pause_note="disk")

    answers = [
        client.post(f"/api/v1/agents/{AGENT_ID}/pause"),
        client.post(f"/api/v1/agents/{AGENT_ID}/pause", json={"note": "disk", "minutes": 10080}),
        client.post(f"/api/v1/agents/{AGENT_ID}/pause", json={"until": "2026-11-22T12:00:00+02:00"}),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert (answers[0].json()["paused_by"], answers[0].json()["pause_note"]) == ("anybody", "disk")
    lasting = [call.kwargs["until"] for call in fleet.pause.await_args_list]
    assert lasting == [timedelta(minutes=5), timedelta(days=7), datetime(2026, 11, 22, 10, tzinfo=UTC)]
    assert fleet.pause.await_args_list[1].kwargs["note"] == "disk"


@pytest.mark.parametrize(
    "body",
    [
        {"minutes": 0},
        {"minutes": 10081},
        {"minutes": 5, "until": "2026-11-22T12:00:00Z"},
        {"until": "2026-11-22T12:00:00"},
        {"until": "9999-12-31T23:59:59-23:00"},
        {"until": "soon"},
        {"note": "x" * 501},
        {"note": "a\x00b"},
        {"minute": 5},
        [],
        "pause",
    ],
    ids=str,
)
def test_a_pause_that_cannot_be_meant_is_refused(client: TestClient, fleet: AsyncMock, body: object) -> None:
    answer = client.post(f"/api/v1/agents/{AGENT_ID}/pause", json=body)

    assert (answer.status_code, answer.json()["error_code"]) == (422, 1002)
    fleet.pause.assert_not_awaited()


def test_a_pause_that_ends_before_it_begins_is_refused(client: TestClient, fleet: AsyncMock) -> None:
    fleet.pause.side_effect = InvalidField("until", "must be in the future")

    answer = client.post(f"/api/v1/agents/{AGENT_ID}/pause", json={"until": "2020-01-01T00:00:00Z"})

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "until")


def test_an_agent_is_drained_with_a_note_and_resumed(client: TestClient, fleet: AsyncMock) -> None:
    fleet.drain.return_value = make_agent(draining=True, drain_note="new kernel")

    drained = client.post(f"/api/v1/agents/{AGENT_ID}/drain", json={"note": "new kernel"})
    resumed = client.post(f"/api/v1/agents/{AGENT_ID}/resume")

    assert (drained.json()["draining"], drained.json()["drain_note"]) == (True, "new kernel")
    assert (resumed.status_code, resumed.json()["draining"]) == (200, False)
    fleet.drain.assert_awaited_once_with(AGENT_ID, note="new kernel", by="anybody")
    fleet.resume.assert_awaited_once_with(AGENT_ID, by="anybody")


@pytest.mark.parametrize("order", ["pause", "drain", "resume"])
def test_an_agent_that_nobody_knows_is_not_found_with_a_code_of_its_own(
    client: TestClient, fleet: AsyncMock, order: str
) -> None:
    getattr(fleet, order).side_effect = AgentNotFound(AGENT_ID)

    answer = client.post(f"/api/v1/agents/{AGENT_ID}/{order}")

    assert (answer.status_code, answer.json()["error_code"]) == (404, 2003)


# POST /api/v1/traces/{trace_id}/cancel


def test_cancel_of_a_trace_says_what_it_cancelled(client: TestClient) -> None:
    answer = client.post(f"/api/v1/traces/{TRACE_ID}/cancel")

    assert answer.status_code == 200
    assert answer.json() == {"trace_id": str(TRACE_ID), "cancelled": [str(TASK_ID)], "already_ended": 2}


def test_cancel_of_a_trace_without_tasks_answers_2001(client: TestClient, control: AsyncMock) -> None:
    control.cancel_trace.side_effect = TraceNotFound(TRACE_ID)

    answer = client.post(f"/api/v1/traces/{TRACE_ID}/cancel")

    assert (answer.status_code, answer.json()["error_code"]) == (404, 2001)


# POST /api/v1/tasks/{task_id}/rerun


def test_a_rerun_answers_with_the_ids_of_the_new_task(client: TestClient, control: AsyncMock) -> None:
    plain = client.post(f"/api/v1/tasks/{TASK_ID}/rerun")
    named = client.post(f"/api/v1/tasks/{TASK_ID}/rerun", json={"task_id": str(AGENT_ID), "trace_id": str(TRACE_ID)})

    assert plain.json()["task_id"] == str(TASK_ID)
    assert named.json()["status"] == "pending"
    assert control.rerun.await_args.kwargs == {
        "as_task": AGENT_ID,
        "request_id": None,
        "trace_id": TRACE_ID,
        "by": ANYBODY,
    }


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (TaskNotFound(TASK_ID), 404, 2001),
        (TaskHasNotEnded(make_task(status=Status.RUNNING)), 400, 2002),
        (IdempotencyConflict("task_id", TASK_ID, TASK_ID), 409, 1003),
    ],
    ids=["not found", "not ended", "taken"],
)
def test_a_rerun_that_cannot_be_says_why(
    client: TestClient, control: AsyncMock, error: Exception, status: int, code: int
) -> None:
    control.rerun.side_effect = error

    answer = client.post(f"/api/v1/tasks/{TASK_ID}/rerun")

    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


@pytest.mark.parametrize("body", [{"task_id": "x"}, {"priority": 5}, []], ids=str)
def test_a_rerun_takes_ids_and_nothing_else(client: TestClient, body: object) -> None:
    assert client.post(f"/api/v1/tasks/{TASK_ID}/rerun", json=body).status_code == 422


# /api/v1/dead-letters


def test_dead_letters_are_listed_a_page_at_a_time_without_bodies(client: TestClient, letters: AsyncMock) -> None:
    letters.newest.return_value = [make_letter(id=number) for number in (9, 8, 7)]

    page = client.get("/api/v1/dead-letters?limit=2&state=waiting&kind=message").json()
    letters.newest.return_value = []
    last = client.get("/api/v1/dead-letters", params={"cursor": page["next_cursor"]}).json()

    assert [item["id"] for item in page["items"]] == [9, 8]
    assert "body" not in page["items"][0]
    assert last == {"items": [], "next_cursor": None}
    first, second = (call.kwargs for call in letters.newest.await_args_list)
    assert first == {"state": DeadLetterState.WAITING, "kind": DeadLetterKind.MESSAGE, "before": None, "limit": 3}
    assert second["before"] == 8


@pytest.mark.parametrize(
    "query", ["state=lost", "kind=x", "limit=0", "limit=201", "cursor=x", "cursor=0", f"cursor={2**63}"]
)
def test_a_list_that_cannot_be_meant_is_refused(client: TestClient, query: str) -> None:
    answer = client.get(f"/api/v1/dead-letters?{query}")

    assert (answer.status_code, answer.json()["error_code"]) == (422, 1002)


def test_a_dead_letter_is_shown_with_its_body(client: TestClient, letters: AsyncMock) -> None:
    letters.get.return_value = make_letter(body=b'{"x": 1}', body_bytes=8, body_kept=8)

    found = client.get("/api/v1/dead-letters/1").json()

    assert (found["body"], found["body_encoding"], found["body_json"]) == ('{"x": 1}', "utf-8", {"x": 1})
    assert (found["queue"], found["reason"], found["body_truncated"]) == ("work.infra", "no JSON", False)


@pytest.mark.parametrize("order", ["replay", "discard"])
def test_a_dead_letter_is_settled_once(client: TestClient, letters: AsyncMock, order: str) -> None:
    settled = make_letter(state=DeadLetterState.DISCARDED, settled_by="anybody", settled_at=NOW)
    settle = getattr(letters, order)
    settle.return_value = settled
    first = client.post(f"/api/v1/dead-letters/1/{order}")
    settle.side_effect = DeadLetterIsSettled(settled)
    second = client.post(f"/api/v1/dead-letters/1/{order}")
    settle.side_effect = DeadLetterNotFound(1)
    third = client.post(f"/api/v1/dead-letters/1/{order}")

    assert (first.status_code, first.json()["settled_by"]) == (200, "anybody")
    assert (second.status_code, second.json()["error_code"]) == (400, 2002)
    assert (third.status_code, third.json()["error_code"]) == (404, 2004)


@pytest.mark.parametrize("number", ["0", "-1", "x", str(2**63)])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/replay"), ("POST", "/discard")])
def test_a_number_that_no_letter_can_have_is_refused(client: TestClient, method: str, path: str, number: str) -> None:
    answer = client.request(method, f"/api/v1/dead-letters/{number}{path}")

    assert (answer.status_code, answer.json()["error_code"]) == (422, 1002)


def test_of_many_each_is_answered_on_its_own(client: TestClient, letters: AsyncMock) -> None:
    async def settle(letter_id: int, *, by: str) -> Any:
        if letter_id == 2:
            raise DeadLetterNotFound(2)
        return make_letter(id=letter_id, state=DeadLetterState.REPLAYED, replayed_as=UUID(int=letter_id))

    letters.replay.side_effect = settle

    results = client.post("/api/v1/dead-letters/replay", json={"ids": [1, 2, 3]}).json()["results"]

    assert [(item["id"], item["status_code"]) for item in results] == [(1, 200), (2, 404), (3, 200)]
    assert results[1]["error"]["error_code"] == 2004
    assert results[2]["dead_letter"]["replayed_as"] == str(UUID(int=3))


def test_while_the_broker_is_away_only_the_first_of_many_is_tried(client: TestClient, letters: AsyncMock) -> None:
    letters.replay.side_effect = BrokerUnavailable("no confirm")

    results = client.post("/api/v1/dead-letters/replay", json={"ids": [1, 2, 3]}).json()["results"]

    assert [item["status_code"] for item in results] == [503, 503, 503]
    letters.replay.assert_awaited_once()


@pytest.mark.parametrize("ids", [[], list(range(1, 102)), [0], [2**63], ["x"], None], ids=lambda ids: str(ids)[:12])
@pytest.mark.parametrize("order", ["replay", "discard"])
def test_1_to_100_letters_are_settled_at_once(client: TestClient, order: str, ids: object) -> None:
    answer = client.post(f"/api/v1/dead-letters/{order}", json={"ids": ids})

    assert (answer.status_code, answer.json()["error_code"]) == (422, 1002)
