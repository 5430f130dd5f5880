"""The example in examples/: a handler submits and never runs anything, and operators see what became of it."""

import asyncio
from typing import Any

import httpx2
import pytest
from examples import in_process_app

from chiffon.in_process import OrchestratorService
from tests.eventually import eventually


async def test_a_handler_answers_before_the_work_is_done_and_operators_see_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go, began = asyncio.Event(), asyncio.Event()

    async def slow(payload: Any) -> Any:
        began.set()
        await go.wait()
        return await in_process_app.summarise(payload)

    in_process_app.service.register("summarise", slow, effect="read")
    app = in_process_app.app
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        answer = await client.post("/chat/m-1", json={"text": "three little words"})
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
        await began.wait()
        again = await client.post("/chat/m-1", json={"text": "three little words"})
        assert again.json()["status"] == "running"
        await client.post("/chat/m-2", json={"text": "one"})
        seen = (await client.get("/ops/queue")).json()
        assert [(pool["pool"], pool["depth"]) for pool in seen["pools"]] == [("in-process", 1)]
        assert [holder["running"] for holder in seen["leases"]] == [1]

        go.set()

        async def both_ended() -> bool:
            return len((await client.get("/ops/executions", params={"limit": 5})).json()["items"]) == 2

        await eventually(both_ended)
        [last, first] = (await client.get("/ops/executions")).json()["items"]
        assert (first["execution_id"], first["result"], first["attempts"]) == ("m-1", {"words": 3}, 1)
        assert (last["execution_id"], last["status"]) == ("m-2", "completed")
        assert (await client.get("/executions/m-1")).json()["result"] == {"words": 3}
        assert (await client.get("/ops/executions", params={"limit": 201})).status_code == 422


async def test_a_note_that_is_to_be_written_waits_for_a_person_who_sees_what_would_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(in_process_app.PEOPLE, "token-of-ben", "ben")
    ben, nobody = {"Authorization": "Bearer token-of-ben"}, {"Authorization": "Bearer made-up"}
    service = OrchestratorService()
    service.register("publish", in_process_app.publish, effect="write")
    monkeypatch.setattr(in_process_app, "service", service)
    app = in_process_app.app
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        answer = await client.post("/notes/m-1", json={"text": "hello"})
        assert (answer.status_code, answer.json()["status"]) == (202, "awaiting_approval")
        [waiting] = (await client.get("/approvals", headers=ben)).json()
        assert (waiting["execution_id"], waiting["payload"]) == ("m-1", {"text": "hello"})
        assert in_process_app.NOTES == []
        assert (await client.post("/approvals/m-1", headers=nobody)).status_code == 401
        assert (await client.post("/approvals/m-2", headers=ben)).status_code == 404

        assert (await client.post("/approvals/m-1", headers=ben)).json() == {"status": "pending"}
        await service.outcome("m-1", timeout=30)

        assert (await client.get("/executions/m-1")).json()["result"] == {"notes": 1}
        assert in_process_app.NOTES == ["hello"]
