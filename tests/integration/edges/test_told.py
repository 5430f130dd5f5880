"""Callers are told what they would miss: events that are kept no longer, pools without work, the limits that hold."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar, cast
from uuid import uuid4

import pytest
import requests
from fastapi import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect

from chiffon.client import Client
from chiffon.models import Event
from orchestrator.database.pool import Pool, open_pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.live.api import PAGE, Watcher
from orchestrator.live.hub import Hub
from orchestrator.live.subscription import Filter
from tests.command_lines import run_here
from tests.eventually import eventually
from tests.fuzz.running import Running, running_orchestrator
from tests.services.ports import free_ports
from tests.services.postgres import Postgres


@pytest.fixture
async def spare_url(postgres: Postgres, ledger_template: str) -> AsyncIterator[str]:
    url = await postgres.create_database(template=ledger_template)
    yield url
    await postgres.drop_database(url)


async def test_a_reader_from_before_what_is_kept_is_told_of_the_gap(
    spare_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running_orchestrator(spare_url) as running:
        async with Client(running.http) as client, open_pool(spare_url, connections=3) as pool:
            for _ in range(5):
                await client.dispatch("echo")
            async with pool.acquire() as db:
                newest = await events.head(db)
            await _remove_events(pool, before=newest - 1)

            async with connect(f"{running.websocket}/api/v1/ws?after=1") as socket:
                frames = [json.loads(await socket.recv()) for _ in range(4)]
            async with connect(f"{running.websocket}/api/v1/ws?after={newest - 2}") as socket:
                whole = [json.loads(await socket.recv()) for _ in range(2)]
            seen = [event.seq async for event in _first(client, 2, after=1)]

    assert frames[:2] == [{"type": "hello", "seq": 1}, {"type": "gap", "after": 1, "until": newest - 2}]
    assert [frame["event"]["seq"] for frame in frames[2:]] == [newest - 1, newest]
    assert [frame["type"] for frame in whole] == ["hello", "event"]
    assert seen == [newest - 1, newest]
    assert f"The events 2 to {newest - 2} are kept no longer." in caplog.text


async def test_a_reader_is_told_of_the_gap_also_when_no_event_is_kept(spare_url: str) -> None:
    with running_orchestrator(spare_url) as running:
        async with Client(running.http) as client, open_pool(spare_url, connections=3) as pool:
            await client.dispatch("echo")
            newest = await _remove_events(pool)
            async with connect(f"{running.websocket}/api/v1/ws?after=0") as socket:
                frames = [json.loads(await socket.recv()) for _ in range(2)]
                await client.dispatch("echo")
                following = json.loads(await socket.recv())

    assert frames == [{"type": "hello", "seq": 0}, {"type": "gap", "after": 0, "until": newest}]
    assert following["event"]["seq"] == newest + 1


async def test_a_reader_that_catches_up_is_told_of_events_that_are_removed_before_it_reads_them(spare_url: str) -> None:
    async with open_pool(spare_url, connections=3) as pool:
        async with transaction(pool) as db:
            await events.append(db, *(NewEvent(Kind.TASK_DISPATCHED, "test", {}) for _ in range(PAGE + 10)))
        hub, sent = Hub(), list[dict[str, Any]]()
        hub.start_at(PAGE + 10)

        class Reader:
            scope: ClassVar[dict[str, Any]] = {}

            async def send_text(self, text: str) -> None:
                sent.append(json.loads(text))
                if len(sent) == PAGE:  # in the midst of the first page
                    await _remove_events(pool, before=PAGE + 6)
                if sent[-1].get("event", {}).get("seq") == PAGE + 10:
                    raise WebSocketDisconnect

        with pytest.raises(WebSocketDisconnect):
            await Watcher(cast("WebSocket", Reader()), pool, hub, Filter(), heartbeat=15).run(0)

    seen = [frame["event"]["seq"] for frame in sent if frame["type"] == "event"]
    assert [frame for frame in sent if frame["type"] == "gap"] == [{"type": "gap", "after": PAGE, "until": PAGE + 5}]
    assert seen == [*range(1, PAGE + 1), *range(PAGE + 6, PAGE + 11)]


@pytest.mark.parametrize("name", ["task_id", "trace_id", "agent_id", "kind"])
async def test_a_reader_that_catches_up_is_shown_only_what_it_asked_for(spare_url: str, name: str) -> None:
    mine: dict[str, Any] = {"task_id": uuid4(), "trace_id": uuid4(), "agent_id": uuid4(), "kind": Kind.TASK_CLAIMED}
    other: dict[str, Any] = {name: Kind.TASK_FAILED if name == "kind" else uuid4()}
    asked: dict[str, Any] = {"kinds": frozenset({mine[name].value})} if name == "kind" else {name: mine[name]}
    sent = list[dict[str, Any]]()

    class Reader:
        scope: ClassVar[dict[str, Any]] = {}

        async def send_text(self, text: str) -> None:
            sent.append(json.loads(text))
            if sent[-1].get("event", {}).get("seq") == 3:
                raise WebSocketDisconnect

    async with open_pool(spare_url, connections=3) as pool:
        async with transaction(pool) as db:
            await events.append(db, *(NewEvent(actor="test", data={}, **one) for one in (mine, mine | other, mine)))
        hub = Hub()
        hub.start_at(3)
        with pytest.raises(WebSocketDisconnect):
            await Watcher(cast("WebSocket", Reader()), pool, hub, Filter(**asked), heartbeat=15).run(0)

    assert [frame["event"]["seq"] for frame in sent if frame["type"] == "event"] == [1, 3]


async def _remove_events(pool: Pool, *, before: int | None = None) -> int:
    """Remove the events before this one, or all, and return the number of the newest there was."""
    async with pool.acquire() as db, db.transaction():
        newest: int = await db.fetchval("SELECT max(seq) FROM event")
        # Without the triggers that keep everybody from doing this.
        await db.execute("SET LOCAL session_replication_role = replica")
        await db.execute("DELETE FROM event WHERE seq < $1", newest + 1 if before is None else before)
    return newest


async def _first(client: Client, count: int, *, after: int) -> AsyncIterator[Event]:
    events = client.watch(after=after)
    async for event in events:
        yield event
        count -= 1
        if not count:
            await events.aclose()
            return


def test_an_agent_of_a_pool_that_no_route_names_is_said_when_it_is_invited_and_in_the_list(
    orchestrator: Running,
) -> None:
    lonely, name = "No route leads to the pool 'gpu'", uuid4().hex

    invited = run_here(["agents", "enrol", f"a-{name}", "--type", "gpu", "--server", orchestrator.http])
    usual = run_here(["agents", "enrol", f"b-{name}", "--type", "infra", "--server", orchestrator.http])
    report: Any = {"agentType": "gpu", "workTypes": ["echo"]}
    worker = f"{orchestrator.http}/api/queue/workers/{uuid4()}/heartbeat"
    requests.post(worker, json=report, timeout=30).raise_for_status()
    listed = run_here(["agents", "--server", orchestrator.http])

    assert (invited.returncode, listed.returncode) == (0, 0), invited.stderr
    assert lonely in invited.stderr.decode()
    assert lonely in listed.stderr.decode()
    assert b"No route" not in usual.stderr


async def test_the_limit_on_bodies_holds_also_under_another_server(spare_url: str, tmp_path: Path) -> None:
    [port] = free_ports(1)
    environment = {
        "CHIFFON_DATABASE_URL": spare_url,
        "CHIFFON_BROKER_URL": spare_url,
        "CHIFFON_AUTHENTICATION": "off",
        "CHIFFON_MAX_BODY_BYTES": "2000",
    }
    command = [sys.executable, "-m", "uvicorn", "orchestrator.main:app", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
    try:

        async def is_up() -> bool:
            assert server.poll() is None, (tmp_path / "log").read_text()
            try:
                return requests.get(f"{url}/health", timeout=5).status_code == 200
            except requests.ConnectionError:
                return False

        await eventually(is_up, timeout=60)
        work: Any = {"task_id": str(uuid4()), "work_type": "echo", "parameters": {"message": "x" * 2000}}
        answer = requests.post(f"{url}/api/v1/dispatch", json=work, timeout=30)
    finally:
        server.terminate()
        server.wait(timeout=30)

    assert answer.status_code == 413
    assert "2000 bytes" in answer.json()["error_message"]
