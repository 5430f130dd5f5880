"""The door by itself: which token of a request counts, and that it watches over WebSockets as long as they are open."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from common.rest.identities import Role
from orchestrator.identities.authenticator import Authenticator
from orchestrator.identities.door import Bearers, Door
from orchestrator.identities.model import Caller, Unauthenticated
from orchestrator.identities.sessions import Sessions
from orchestrator.main import create_app
from tests.factories import make_caller

ANN = make_caller("ann", Role.VIEWER)
TOKEN = b"Bearer chf_one"


def scope_of(kind: str, *authorization: bytes, query: bytes = b"") -> dict[str, Any]:
    headers = [(b"authorization", value) for value in authorization]
    return {"type": kind, "path": "/api/v1/ws", "headers": headers, "query_string": query, "client": ("192.0.2.1", 1)}


@pytest.fixture
def authenticator() -> Any:
    """Knows every token and ticket."""
    made = AsyncMock(spec=Authenticator)
    made.caller.return_value = made.caller_with_ticket.return_value = ANN
    return made


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_request_with_two_tokens_is_refused(authenticator: Any, kind: str) -> None:
    door = Bearers(authenticator, AsyncMock(spec=Sessions))
    assert await door.admit(scope_of(kind, TOKEN)) is ANN

    for headers in ((TOKEN, b"Bearer chf_two"), (TOKEN, TOKEN), (b"Basic x", TOKEN), (TOKEN, b"")):
        with pytest.raises(Unauthenticated):
            await door.admit(scope_of(kind, *headers))


@pytest.mark.parametrize("header", [b"Basic chf_one", b"chf_one", b"bearerchf_one", b""])
async def test_only_a_bearer_token_is_looked_at(authenticator: Any, header: bytes) -> None:
    with pytest.raises(Unauthenticated):
        await Bearers(authenticator, AsyncMock(spec=Sessions)).admit(scope_of("http", header))


async def test_a_ticket_opens_a_websocket_only_and_only_one_is_looked_at(authenticator: Any) -> None:
    door = Bearers(authenticator, AsyncMock(spec=Sessions))
    assert await door.admit(scope_of("websocket", query=b"ticket=cht_one")) is ANN

    for scope in (
        scope_of("http", query=b"ticket=cht_one"),
        scope_of("websocket", query=b"ticket=cht_one&ticket=cht_two"),
        scope_of("websocket", query=b"ticket=" + b"x" * 201),
    ):
        with pytest.raises(Unauthenticated):
            await door.admit(scope)


class Watched:
    """WebSockets whose end the test decides."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    @contextmanager
    def opened(self, caller: Caller) -> Iterator[asyncio.Event]:
        assert caller is ANN
        yield self.ended


class Keeper:
    def __init__(self, sessions: Any) -> None:
        self.sessions = sessions

    async def admit(self, scope: Scope) -> Caller:
        return ANN


async def test_an_open_websocket_is_closed_when_its_token_stops_to_count() -> None:
    watched, sent = Watched(), list[Message]()
    is_open, was_cancelled = asyncio.Event(), asyncio.Event()

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        is_open.set()
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled.set()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = scope_of("websocket") | {"app": SimpleNamespace(state=SimpleNamespace(keeper=Keeper(watched)))}
    serving = asyncio.ensure_future(Door(app, public=(), detailed=())(scope, AsyncMock(), send))
    async with asyncio.timeout(5):
        await is_open.wait()
        watched.ended.set()
        await serving

    assert was_cancelled.is_set()
    assert [(one["type"], one.get("code")) for one in sent] == [("websocket.accept", None), ("websocket.close", 4401)]


def test_an_app_that_was_not_started_serves_nobody_where_tokens_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHIFFON_AUTHENTICATION", "required")

    answer = TestClient(create_app()).get("/api/v1/whoami", headers={"authorization": TOKEN.decode()})

    assert (answer.status_code, answer.json()["error_code"]) == (401, 4001)
