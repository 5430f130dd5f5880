"""Nobody passes who is not known, and whoever is known may do what the roles say: on every route and WebSocket."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import cache
from uuid import uuid4

import pytest
from fastapi.routing import RouteContext, iter_route_contexts
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from chiffon.http import bearer
from common.rest.identities import Permission, Role, TokenPurpose
from orchestrator.identities.access import PUBLIC, demands_of
from orchestrator.identities.permissions import PERMISSIONS
from orchestrator.identities.tokens import new_token
from orchestrator.main import create_app
from tests.integration.identities.conftest import Site, guarded

ECHO = {"task_id": str(uuid4()), "work_type": "echo", "parameters": {}}


@cache
def routes() -> list[tuple[RouteContext, str]]:
    """Return every route with a path that leads to it."""
    return list(_routes())


def _routes() -> Iterator[tuple[RouteContext, str]]:
    for route in iter_route_contexts(create_app().routes):
        assert route.path is not None
        if route.path not in PUBLIC:
            path = route.path
            for name in ("letter_id",):
                path = path.replace(f"{{{name}}}", "1")
            while "{" in path:
                head, _, rest = path.partition("{")
                path = f"{head}{uuid4()}{rest.partition('}')[2]}"
            yield route, path


def test_the_list_of_what_is_public_is_short_and_changes_nothing() -> None:
    assert {path for path in PUBLIC if path.startswith("/api")} == {"/api/v1/enrol"}
    assert len(PUBLIC) == 9


async def test_every_route_refuses_who_is_not_known(site: Site) -> None:
    nobody, forger = await site.client(None), await site.client(new_token(TokenPurpose.API))
    for route, path in routes():
        if route.methods is None:
            assert await close_code(site, path, None) == 4401, path
            continue
        for method in route.methods - {"HEAD"}:
            for client in (nobody, forger):
                answer = await client.request(method, path)
                if answer.status_code == 429:  # it has guessed too often
                    assert client is forger
                    continue
                assert (answer.status_code, answer.json()["error_code"]) == (401, 4001), f"{method} {path}"
                assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN])
async def test_every_route_lets_in_only_whose_role_may(site: Site, role: Role) -> None:
    token = (await site.issue(role)).secret
    client = await site.client(token)
    for route, path in routes():
        allowed = all(one is None or one in PERMISSIONS[role] for one in demands_of(route))
        if route.methods is None:
            assert (await close_code(site, path, token) == 4403) is not allowed, path
            continue
        for method in route.methods - {"HEAD"}:
            answer = await client.request(method, path)
            refused = answer.status_code == 403 and answer.json()["error_code"] == 4003
            assert refused is not allowed, f"{method} {path}: {answer.text}"


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
