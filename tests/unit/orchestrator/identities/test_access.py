"""No app is made with a route that asks for nothing, and an open door is open to this host only."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, WebSocket

from orchestrator.audit import api as audit
from orchestrator.identities.access import READ, RouteIsOpen, check_routes
from orchestrator.identities.door import EverybodyOfThisHost
from orchestrator.identities.door_keeping import NobodyIsAsked, check_authentication
from orchestrator.identities.model import ANYBODY, Unauthenticated
from orchestrator.main import create_app
from orchestrator.settings import OrchestratorSettings


async def nothing() -> None:
    pass


async def socket(socket: WebSocket) -> None:
    pass


def test_no_app_is_made_with_a_route_that_names_no_permission() -> None:
    guarded, open_, listening = APIRouter(), APIRouter(), APIRouter(prefix="/more")
    guarded.add_api_route("/guarded", nothing, dependencies=[READ])
    guarded.add_api_websocket_route("/feed", socket, dependencies=[READ])
    open_.add_api_route("/open", nothing)
    listening.add_api_websocket_route("/listen", socket)
    app = FastAPI(openapi_url=None)
    app.include_router(guarded)
    check_routes(app)

    for router, path in ((open_, "/open"), (listening, "/more/listen")):
        app = FastAPI(openapi_url=None)
        app.include_router(guarded)
        app.include_router(router)
        with pytest.raises(RouteIsOpen, match=path):
            check_routes(app)


def test_the_orchestrator_is_not_made_with_a_route_that_names_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    open_ = APIRouter()
    open_.add_api_route("/open", nothing)
    monkeypatch.setattr(audit, "router", open_)

    with pytest.raises(RouteIsOpen, match="/open"):
        create_app()


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.1.1", "2001:db8::1", "::ffff:10.0.0.7"])
async def test_where_nobody_is_asked_no_other_host_is_served(address: str) -> None:
    scope: dict[str, Any] = {"type": "http", "client": (address, 4711), "headers": []}

    with pytest.raises(Unauthenticated):
        await EverybodyOfThisHost().admit(scope)


@pytest.mark.parametrize(
    "name", ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"]
)
async def test_where_nobody_is_asked_nothing_that_a_proxy_passes_on_is_served(name: str) -> None:
    scope = {"type": "http", "client": ("127.0.0.1", 1), "headers": [(name.encode(), b"127.0.0.1")]}

    with pytest.raises(Unauthenticated):
        await EverybodyOfThisHost().admit(scope)


@pytest.mark.parametrize("client", [("127.0.0.1", 1), ("::1", 1), None])
async def test_where_nobody_is_asked_this_host_is_served(client: object) -> None:
    assert await EverybodyOfThisHost().admit({"type": "http", "client": client, "headers": []}) is ANYBODY


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "chiffon.example"])
def test_the_open_door_is_refused_on_any_address_but_loopback(host: str) -> None:
    with pytest.raises(NobodyIsAsked):
        check_authentication(OrchestratorSettings(host=host, authentication="off"))
    check_authentication(OrchestratorSettings(host=host, authentication="required"))
