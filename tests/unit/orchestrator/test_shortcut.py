"""A dispatch that passes no router is answered as its route answers it."""

import json
from functools import cache, partial
from typing import Any
from unittest.mock import create_autospec
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import Scope

from common.errors import ErrorCode, InvalidField
from common.lifecycle import Status
from common.rest.identities import Role
from orchestrator.api import get_orchestrator_service
from orchestrator.identities.model import Caller
from orchestrator.main import create_app
from orchestrator.service import OrchestratorService
from orchestrator.tasks.dispatch import IdempotencyConflict, UnknownWorkType
from orchestrator.tasks.model import Identity
from tests.factories import make_caller

TASK, REQUEST, TRACE = UUID(int=11), UUID(int=12), UUID(int=13)
PLAIN = {"task_id": str(TASK), "work_type": "echo", "parameters": {"message": "ä☂"}}
HEADERS = {"content-type": "application/json", "x-trace-id": str(TRACE)}


class Keeper:
    sessions = None

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def admit(self, scope: Scope) -> Caller:
        return self._caller


@cache
def _fake() -> Any:
    return create_autospec(OrchestratorService, instance=True)


@cache
def _app() -> FastAPI:
    return create_app()


def service_that(answer: Identity | Exception) -> OrchestratorService:
    """Return the one fake, which has forgotten what it was asked before."""
    service = _fake()
    service.reset_mock(return_value=True, side_effect=True)
    service.dispatch_work.side_effect = [answer] * 2 if isinstance(answer, Exception) else None
    service.dispatch_work.return_value = answer
    return service  # type: ignore[no-any-return]


def app_with(service: OrchestratorService, caller: Caller, *, app: FastAPI) -> FastAPI:
    app.state.keeper, app.state.orchestrator_service = Keeper(caller), service
    return app


def both_ways(
    answer: Identity | Exception, content: bytes, *, path: str = "/api/v1/dispatch", caller: Caller | None = None
) -> list[tuple[int, bytes, dict[str, str], list[Any]]]:
    """Return what the shortcut and the route answer, and what the service was asked."""
    found = []
    for is_route in (False, True):
        service = service_that(answer)
        app = app_with(service, caller or make_caller("ann", Role.OPERATOR, principal_id=UUID(int=1)), app=_app())
        # An overridden dependency is the route's.
        app.dependency_overrides = {get_orchestrator_service: partial(_same, service)} if is_route else {}
        said = TestClient(app, raise_server_exceptions=False).post(path, content=content, headers=HEADERS)
        asked: Any = service.dispatch_work
        calls = [(call.args, {**call.kwargs, "requested_by": None}) for call in asked.call_args_list]
        found.append((said.status_code, said.content, dict(said.headers), calls))
    return found


async def _same(service: OrchestratorService, /) -> OrchestratorService:
    return service


KNOWN = Identity(TASK, REQUEST, TRACE, b"", Status.PENDING)
WAITS = Identity(TASK, REQUEST, TRACE, b"", Status.AWAITING_APPROVAL, uuid4())


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (KNOWN, 200),
        (WAITS, 200),
        (UnknownWorkType("echo", []), 400),
        (InvalidField("parameters.message", "must be a text"), 422),
        (IdempotencyConflict("task_id", TASK, TASK), 409),
        (RuntimeError("broken"), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception | Identity) else str(value),
)
def test_whatever_the_service_says_both_ways_say_the_same(answer: Identity | Exception, status: int) -> None:
    shortcut, route = both_ways(answer, json.dumps(PLAIN).encode())

    assert shortcut == route
    assert shortcut[0] == status
    assert len(shortcut[3]) == 1


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{}", 422),
        (b"[]", 422),
        (b"null", 422),
        (b'{"task_id":1}', 422),
        (json.dumps(PLAIN | {"priority": 6}).encode(), 422),
        (json.dumps(PLAIN | {"priority": "3"}).encode(), 422),
        (json.dumps(PLAIN | {"unknown": 1}).encode(), 422),
        (b'{"work_type":"echo","work_type":"echo"}', 422),
        (json.dumps(PLAIN | {"priority": 5, "labels": {"a": "b"}, "idempotent": True}).encode(), 200),
        (b"\xef\xbb\xbf" + json.dumps(PLAIN).encode(), 200),
        (b'{"work_type":"echo","parameters":{"message":"\\ud800"}}', 422),
    ],
)
def test_whatever_the_body_both_ways_say_the_same(content: bytes, status: int) -> None:
    shortcut, route = both_ways(KNOWN, content)

    assert shortcut == route
    assert shortcut[0] == status


@pytest.mark.parametrize("path", ["/api/v1/dispatch?dry_run=1", "/api/v1/dispatch/", "/api/v1/dispatch?"])
def test_whatever_the_path_both_ways_say_the_same(path: str) -> None:
    shortcut, route = both_ways(KNOWN, json.dumps(PLAIN).encode(), path=path)

    assert shortcut == route


def test_a_caller_who_may_not_dispatch_is_refused_by_the_route() -> None:
    shortcut, route = both_ways(KNOWN, json.dumps(PLAIN).encode(), caller=make_caller("bob", Role.VIEWER))

    assert shortcut == route
    assert (shortcut[0], json.loads(shortcut[1])["error_code"]) == (403, ErrorCode.FORBIDDEN)
    assert shortcut[3] == []


def test_a_plain_dispatch_needs_no_route() -> None:
    app = app_with(service_that(KNOWN), make_caller("ann", Role.OPERATOR), app=create_app())
    app.router.routes.clear()
    client = TestClient(app)

    assert client.post("/api/v1/dispatch", json=PLAIN).status_code == 200
    assert client.post("/api/v1/dispatch?x=1", json=PLAIN).status_code == 404
