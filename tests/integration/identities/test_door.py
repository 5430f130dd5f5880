"""Nobody passes who is not known, and whoever is known may do what the roles say: on every route and WebSocket."""

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi.routing import iter_route_contexts
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from agents.over_http.enrol import enrol
from chiffon.http import bearer
from common.rest.identities import Permission, Role, TokenPurpose
from orchestrator import shortcut
from orchestrator.identities.access import PUBLIC
from orchestrator.identities.tokens import new_token
from orchestrator.main import create_app
from tests.integration.edges.paths import at
from tests.integration.identities.conftest import Site, guarded
from tests.permissions import ALLOWED, DEMANDED, PEOPLE, WEBSOCKET, Demand, Open, Route

ECHO = {"task_id": str(uuid4()), "work_type": "echo", "parameters": {}}
SHORTCUT = ("POST", "/api/v1/dispatch")
# What people and services can be given; the work of an agent takes its credential.
PERSONAL = [one for one in Permission if one is not Permission.WORK]


def guarded_routes() -> Iterator[tuple[str, str, Demand]]:
    """Yield the method, or WEBSOCKET, a path and the demand of every route that is not for strangers."""
    for (method, path), demand in DEMANDED.items():
        if demand is not Open.STRANGERS:
            yield method, at(path), demand


def test_every_route_stands_in_the_table_of_demands_and_every_row_of_it_has_a_route() -> None:
    found = set[Route]()
    for route in iter_route_contexts(create_app().routes):
        methods = {WEBSOCKET} if route.methods is None else route.methods - {"HEAD"}
        found |= {(method, str(route.path)) for method in methods}

    assert found == set(DEMANDED)
    assert ("POST", shortcut.PATH) == SHORTCUT


def test_the_list_of_what_is_public_is_short_and_changes_nothing() -> None:
    assert set(PUBLIC) == {path for (_, path), demand in DEMANDED.items() if demand is Open.STRANGERS}
    assert {path for path in PUBLIC if path.startswith("/api")} == {"/api/v1/enrol"}
    assert len(PUBLIC) == 9


async def test_every_route_refuses_who_is_not_known(site: Site) -> None:
    nobody, forger = await site.client(None), await site.client(new_token(TokenPurpose.API))
    for method, path, _ in guarded_routes():
        if method == WEBSOCKET:
            assert await close_code(site, path, None) == 4401, path
            continue
        for client in (nobody, forger):
            answer = await client.request(method, path)
            if answer.status_code == 429:  # it has guessed too often
                assert client is forger
                continue
            assert (answer.status_code, answer.json()["error_code"]) == (401, 4001), f"{method} {path}"
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_every_route_for_strangers_serves_them(site: Site) -> None:
    nobody = await site.client(None)

    answers = {
        (method, path): (await nobody.request(method, path)).status_code
        for (method, path), demand in DEMANDED.items()
        if demand is Open.STRANGERS
    }

    # Readiness may still be on its way, and an enrolment needs its token.
    assert answers.pop(("GET", "/ready")) in (200, 503)
    assert answers.pop(("POST", "/api/v1/enrol")) == 422
    assert set(answers.values()) == {200}


async def test_every_route_refuses_whoever_lacks_just_its_permission(site: Site) -> None:
    agent = await agent_token(site)
    rest = {
        missing: (await site.issue(*PEOPLE, scopes=[one for one in PERSONAL if one is not missing])).secret
        for missing in Permission
    }

    asked = [
        (method, path, token, body)
        for method, path, demand in guarded_routes()
        if not isinstance(demand, Open)
        for token in [rest[demand], *([] if demand is Permission.WORK else [agent])]
        for body in bodies(method, path)
    ]
    served = [f"{one[0]} {one[1]} {one[3] or ''}" for one in asked if not await is_refused(site, *one)]

    assert served == []


async def test_every_route_serves_whoever_has_just_its_permission(site: Site) -> None:
    just: dict[Permission, str] = {one: (await site.issue(*PEOPLE, scopes=[one])).secret for one in PERSONAL}
    just[Permission.WORK] = await agent_token(site)

    asked = [
        (method, path, token, body)
        for method, path, demand in guarded_routes()
        for token in (just.values() if isinstance(demand, Open) else [just[demand]])
        for body in bodies(method, path)
    ]
    refused = [f"{one[0]} {one[1]} {one[3] or ''}" for one in asked if await is_refused(site, *one)]

    assert refused == []


@pytest.mark.parametrize("role", PEOPLE)
async def test_every_route_lets_in_only_whose_role_may(site: Site, role: Role) -> None:
    token = (await site.issue(role)).secret
    for method, path, demand in guarded_routes():
        allowed = isinstance(demand, Open) or demand in ALLOWED[role]
        assert await is_refused(site, method, path, token) is not allowed, f"{method} {path}"


def bodies(method: str, path: str) -> list[Mapping[str, Any] | None]:
    """Return what to send: nothing, which the route looks at, and where there is a shortcut what that answers."""
    return [None, {**ECHO, "task_id": str(uuid4())}] if (method, path) == SHORTCUT else [None]


async def agent_token(site: Site) -> str:
    """Return the credential of a new agent."""
    admin = await site.somebody(Role.ADMIN)
    wanted = {"name": f"a-{uuid4().hex[:12]}", "agent_type": "infra"}
    invited = await admin.post("/api/v1/enrolments", json=wanted)
    return (await enrol(site.url, invited.json()["token"])).token


async def is_refused(site: Site, method: str, path: str, token: str, body: Mapping[str, Any] | None = None) -> bool:
    """Return whether a caller, who must be known, is refused for want of a permission."""
    if method == WEBSOCKET:
        code = await close_code(site, path, token)
        assert code in (4403, None)
        return code == 4403
    answer = await site.ask(method, path, token, json=body)
    assert answer.status_code not in (401, 429), answer.text
    return bool(answer.status_code == 403 and answer.json()["error_code"] == 4003)


async def test_only_a_caller_who_may_dispatch_has_work_explained(site: Site) -> None:
    asked = {"work_type": "echo", "parameters": {}}
    answers = {
        role: (await (await site.somebody(role)).post("/api/v1/policy/explain", json=asked)).status_code
        for role in (Role.VIEWER, Role.APPROVER, Role.OPERATOR, Role.ADMIN)
    }

    assert answers == {Role.VIEWER: 403, Role.APPROVER: 403, Role.OPERATOR: 200, Role.ADMIN: 200}


async def test_whoever_dispatches_stands_in_the_event_by_name(site: Site) -> None:
    operator = await site.somebody(Role.OPERATOR)
    assert (await operator.post("/api/v1/dispatch", json=ECHO)).status_code == 200

    me = (await operator.get("/api/v1/whoami")).json()
    events = (await operator.get(f"/api/v1/tasks/{ECHO['task_id']}/events")).json()["items"]

    assert events[0]["actor"] == me["name"]
    assert me["name"].startswith("p-")


async def test_the_log_names_who_asked_by_name_and_token_id_and_never_the_token(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    issued, forged = await site.issue(Role.VIEWER), new_token(TokenPurpose.API)

    await (await site.client(issued.secret)).get("/api/v1/tasks")
    await (await site.client(forged)).get("/api/v1/agents")

    [line] = [record for record in caplog.records if record.message == "request" and "tasks" in record.__dict__["path"]]
    [refused] = [record for record in caplog.records if record.message == "door.refused"]
    assert line.__dict__["token_id"] == issued.token.token_id
    assert line.__dict__["caller"].startswith("p-")
    assert refused.__dict__["address"] == "127.0.0.1"
    everything = "\n".join(str(record.__dict__) for record in caplog.records)
    assert issued.secret not in everything
    assert forged not in everything


async def test_the_log_grows_by_less_than_a_long_path_of_a_stranger_has(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    await (await site.client(None)).get(f"/{'%1b' * 5000}")

    paths = [record.__dict__["path"] for record in caplog.records if record.message in ("door.refused", "request")]
    assert [len(path) for path in paths] == [301, 301]


async def test_the_log_holds_nothing_of_a_body_good_or_bad(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    operator = await site.somebody(Role.OPERATOR)
    json = {"content-type": "application/json"}
    good = {
        "task_id": str(uuid4()),
        "work_type": "shell_script",
        "parameters": {"script": "echo planted-script", "env": {"A": "planted-value"}, "stdin": "planted-input"},
    }
    bad = {**good, "parameters": {"argv": [{"planted": "planted-value"}], "more": "planted-input"}}

    answers = [await operator.post("/api/v1/dispatch", json=body) for body in (good, bad)]
    answers.append(await operator.post("/api/v1/dispatch", content=b'{"planted-key', headers=json))

    assert [answer.status_code for answer in answers] == [200, 422, 422]
    assert len([record for record in caplog.records if record.message == "request"]) == 3
    assert "planted" not in "\n".join(str(record.__dict__) for record in caplog.records)
    assert "planted-value" not in "".join(answer.text for answer in answers)


async def test_a_token_may_do_less_than_its_owner_and_never_more(site: Site) -> None:
    reader = await site.client((await site.issue(Role.OPERATOR, scopes=[Permission.READ])).secret)
    schemer = await site.client((await site.issue(Role.VIEWER, scopes=[Permission.READ, Permission.DISPATCH])).secret)

    for client in (reader, schemer):
        assert (await client.get("/api/v1/tasks")).status_code == 200
        assert (await client.post("/api/v1/dispatch", json=ECHO)).status_code == 403


async def test_a_token_in_the_address_is_no_token(site: Site) -> None:
    secret = (await site.issue(Role.ADMIN)).secret
    nobody = await site.client(None)

    for name in ("token", "access_token", "ticket", "authorization"):
        assert (await nobody.get("/api/v1/tasks", params={name: secret})).status_code == 401
        assert await close_code(site, f"/api/v1/ws?{name}={secret}", None) == 4401


@pytest.mark.own_ledger
@pytest.mark.parametrize("how", ["revoke", "disable", "expire"])
@pytest.mark.parametrize("notified", [True, False])
async def test_a_revoked_token_is_refused_within_a_second_on_http_and_on_an_open_websocket(
    site: Site, how: str, notified: bool
) -> None:
    issued = await site.issue(Role.VIEWER, lasts=timedelta(seconds=1.5) if how == "expire" else None)
    client = await site.client(issued.secret)
    loop = asyncio.get_running_loop()
    async with connect(
        f"{site.url.replace('http', 'ws')}/api/v1/ws", additional_headers=bearer(issued.secret)
    ) as open_:
        assert json.loads(await open_.recv())["type"] == "hello"
        assert (await client.get("/api/v1/tasks")).status_code == 200
        if not notified:
            await deafen(site)
            assert (await client.get("/api/v1/tasks")).status_code == 200
        if how == "revoke":
            await site.identities.revoke(issued.token.token_id, by="test")
        elif how == "disable":
            await site.identities.disable(issued.token.principal_id, by="test")
        began = last_accepted = asked = loop.time()
        while (answer := await client.get("/api/v1/tasks")).status_code == 200:
            last_accepted = asked
            await asyncio.sleep(0.01)
            asked = loop.time()
        refused = loop.time()
        with pytest.raises(ConnectionClosed) as closed:
            await read_all(open_)
        ended = loop.time()

    assert answer.json()["error_code"] == 4001
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401
    if how != "expire":
        # The time of the request counts: a slow machine answers late. Each WebSocket is checked twice a second.
        assert last_accepted - began < 1
        assert ended - max(refused, began + 1) < 0.5


async def test_a_wrong_token_is_tried_some_times_and_then_has_to_wait_while_others_go_on(
    ledger_url: str, site: Site
) -> None:
    good = await site.somebody(Role.VIEWER)
    assert (await good.get("/api/v1/tasks")).status_code == 200
    guesser = await site.client(None)

    answers = [await guesser.get("/api/v1/tasks", headers=bearer(new_token(TokenPurpose.API))) for _ in range(14)]

    assert [answer.status_code for answer in answers[:10]] == [401] * 10
    assert (answers[-1].status_code, answers[-1].json()["error_code"]) == (429, 4029)
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert (await good.get("/api/v1/tasks")).status_code == 200


async def test_one_token_makes_only_so_many_requests_and_opens_only_so_many_websockets(
    ledger_url: str, site: Site
) -> None:
    async with guarded(ledger_url, token_requests_per_second=0.5, token_websockets=2) as url:
        secret = (await site.issue(Role.VIEWER)).secret
        limited = Site(url, site.identities, site.pool, site.stack)
        async with AsyncExitStack() as stack:
            address = f"{url.replace('http', 'ws')}/api/v1/ws"
            for _ in range(2):
                opened = await stack.enter_async_context(connect(address, additional_headers=bearer(secret)))
                assert json.loads(await opened.recv())["type"] == "hello"
            assert await close_code(limited, "/api/v1/ws", secret) == 4429
        client = await limited.client(secret)
        answers = [await client.get("/api/v1/tasks") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert int(answers[-1].headers["retry-after"]) in {1, 2}


async def close_code(site: Site, path: str, token: str | None) -> int | None:
    """Return the code with which a WebSocket is closed at once; None when it stays open."""
    async with connect(f"{site.url.replace('http', 'ws')}{path}", additional_headers=bearer(token)) as opened:
        try:
            await opened.recv()
        except ConnectionClosed as closed:
            return None if closed.rcvd is None else closed.rcvd.code
    return None


async def read_all(opened: ClientConnection) -> None:
    while True:
        await opened.recv()


async def deafen(site: Site) -> None:
    """Take from the ledger what tells orchestrators of changes."""
    async with site.pool.acquire() as db:
        await db.execute("DROP TRIGGER token_tell ON token; DROP TRIGGER principal_tell ON principal")
