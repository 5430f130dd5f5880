"""What a web page of somebody else can have a browser send, and that none of it does anything."""

import json
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from common.http_client import client_options
from common.rest.identities import Permission, Role
from orchestrator.identities.access import PUBLIC, demands_of
from orchestrator.main import create_app
from tests.integration.identities.conftest import Site, guarded

# A browser sends these to any server without asking it first.
FORMS = [
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/plain",
    "text/plain;charset=json",
]
CHANGES = {Permission.DISPATCH, Permission.OPERATE, Permission.APPROVE, Permission.WORK}


def body() -> dict[str, Any]:
    return {"task_id": str(uuid4()), "work_type": "echo", "parameters": {"message": "from a page"}}


async def dispatched(client: httpx2.AsyncClient) -> int:
    return len((await client.get("/api/v1/tasks")).json()["items"])


@pytest.mark.parametrize("content_type", FORMS)
async def test_a_form_of_a_web_page_dispatches_nothing_whatever_it_is_called(site: Site, content_type: str) -> None:
    viewer, browser = await site.somebody(Role.VIEWER), await site.client(None)
    secret = (await site.issue(Role.ADMIN)).secret
    headers = {"content-type": content_type}
    # A browser that was given the token as a cookie would send it along; no cookie is ever looked at.
    cookies = {"cookie": f"token={secret}; authorization=Bearer {secret}; session={secret}"}

    for more in ({}, cookies, {"origin": "https://evil.example"}, {"origin": "null"}):
        answer = await browser.post(
            "/api/v1/dispatch", content=json.dumps(body()).encode(), headers={**headers, **more}
        )
        assert answer.status_code == (403 if "origin" in more else 401)

    assert await dispatched(viewer) == 0


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://["])
async def test_where_nobody_is_asked_pages_of_others_still_do_nothing(ledger_url: str, origin: str) -> None:
    async with guarded(ledger_url, authentication="off") as url, httpx2.AsyncClient(**client_options(url)) as browser:
        for content_type in (*FORMS, "application/json"):
            headers = {"content-type": content_type, "origin": origin}
            answer = await browser.post("/api/v1/dispatch", content=json.dumps(body()).encode(), headers=headers)
            assert answer.status_code == 403
        asked = await browser.options(
            "/api/v1/dispatch", headers={"origin": origin, "access-control-request-method": "POST"}
        )
        read = await browser.get("/api/v1/tasks", headers={"origin": origin})

        assert await dispatched(browser) == 0
    # A page may have these sent; without this header its browser does not let it see the answer, or send more.
    for answer in (asked, read):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_no_get_asks_for_a_right_to_change_anything() -> None:
    for route in iter_route_contexts(create_app().routes):
        if route.path not in PUBLIC and "GET" in (route.methods or ()):
            assert not CHANGES & set(demands_of(route)), route.path
