"""Whoever watches over a WebSocket sees every event once, in order, also after coming back."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx2
import psutil
import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import CloseCode

import orchestrator.live.api as live
import orchestrator.main as main
from orchestrator.database.pages import Listing
from orchestrator.events import queries
from orchestrator.events.model import Event
from orchestrator.http import websocket
from orchestrator.http.errors import BAD_PARAMETERS
from orchestrator.live import hub, subscription
from orchestrator.main import MOST_FRAME_BYTES
from tests.eventually import eventually
from tests.integration.system.deployment import System, orchestrator
from tests.services.ports import free_ports
from tests.services.postgres import Postgres

pytestmark = pytest.mark.xdist_group("system/live")

Next = Callable[[], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def watching(system: System, path: str) -> AsyncIterator[Next]:
    """Open a WebSocket; yields a function that returns the next frame."""
    async with connect(system.websocket + path) as socket:

        async def frame() -> dict[str, Any]:
            async with asyncio.timeout(10):
                found: dict[str, Any] = json.loads(await socket.recv())
                return found

        yield frame


async def position(system: System) -> int:
    """Return the number of the newest event."""
    async with watching(system, f"/ws/{uuid4()}") as frame:
        newest: int = (await frame())["seq"]
        return newest


async def events_until(frame: Next, kind: str) -> list[dict[str, Any]]:
    """Return the events up to the first of a kind."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["kind"] != kind:
        message = await frame()
        if message["type"] == "event":
            found.append(message["event"])
    return found


async def test_a_trace_is_seen_live_from_dispatch_to_result_with_its_output(system: System) -> None:
    await system.start_agent()
    trace_id, other = uuid4(), uuid4()
    async with watching(system, f"/ws/{trace_id}") as frame:
        assert (await frame())["type"] == "hello"

        await system.client.dispatch("echo", {"message": "not mine"}, trace_id=other)
        await system.client.dispatch("echo", {"message": "hello"}, trace_id=trace_id)
        events = await events_until(frame, "task.completed")

    assert [event["kind"] for event in events] == ["task.dispatched", "task.claimed", "task.output", "task.completed"]
    assert {event["trace_id"] for event in events} == {str(trace_id)}
    assert events[2]["data"]["text"] == "hello"


async def test_events_are_filtered_by_task_agent_and_type(system: System) -> None:
    await system.start_agent()
    task_id = uuid4()
    wanted = f"/api/v1/ws?task_id={task_id}&type=task.claimed&type=task.completed"
    async with watching(system, wanted) as frame, watching(system, f"/api/v1/ws?agent_id={uuid4()}") as nothing:
        await frame()
        await system.client.dispatch("echo", {"message": "x"}, task_id=task_id)

        assert [event["kind"] for event in await events_until(frame, "task.completed")] == [
            "task.claimed",
            "task.completed",
        ]
        assert (await nothing())["type"] == "hello"


async def test_a_reader_that_comes_back_misses_nothing_and_sees_nothing_twice(system: System) -> None:
    await system.start_agent(slots=4)
    seen: list[int] = []
    after = begin = await position(system)
    stop = asyncio.Event()

    async def keep_dispatching() -> None:
        while not stop.is_set():
            await system.client.dispatch("echo", {"message": "x"})

    busy = [asyncio.create_task(keep_dispatching()) for _ in range(2)]
    for _ in range(12):
        async with watching(system, f"/api/v1/ws?after={after}") as frame:
            await frame()
            for _ in range(25):
                message = await frame()
                if message["type"] == "event":
                    seen.append(message["event"]["seq"])
        after = seen[-1]
    stop.set()
    await asyncio.gather(*busy)

    assert seen == list(range(begin + 1, begin + len(seen) + 1))
    assert len(seen) >= 290


async def test_the_past_is_replayed_from_the_ledger_when_it_is_no_longer_in_memory(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PAGE", 7)
    begin = await position(system)
    task_ids = [uuid4() for _ in range(30)]
    async with watching(system, "/api/v1/ws") as earlier:
        await earlier()
        for task_id in task_ids:
            await system.client.dispatch("echo", {"message": "x"}, task_id=task_id)
            await system.client.cancel(task_id)
        await events_until_count(earlier, 60)
        async with watching(system, f"/api/v1/ws?after={begin}") as frame:
            in_memory = await events_until_count(frame, 60)

    async with _restarted(system), watching(system, f"/api/v1/ws?after={begin}") as frame:
        from_ledger = await events_until_count(frame, 60)

    assert from_ledger == in_memory
    assert [event["seq"] for event in from_ledger] == list(range(begin + 1, begin + 61))


async def events_until_count(frame: Next, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        message = await frame()
        if message["type"] == "event":
            found.append(message["event"])
    return found


@asynccontextmanager
async def _restarted(system: System) -> AsyncIterator[None]:
    """Another orchestrator on the same ledger, on another port, whose memory is empty."""
    [port] = free_ports(1)
    before = system.settings
    system.settings = before.model_copy(update={"port": port})
    async with orchestrator(system.settings, system.shared):
        yield
    system.settings = before


async def test_a_server_that_knows_only_asgi_shows_the_same(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    await system.start_agent()
    trace_id = uuid4()
    monkeypatch.setattr(main, "WebSockets", WebSocketsSansIOProtocol)
    path = f"/ws/{trace_id}"
    async with watching(system, path) as usual, _restarted(system), watching(system, path) as plain:
        assert (await usual())["type"] == (await plain())["type"] == "hello"
        await system.client.dispatch("echo", {"message": "x"}, trace_id=trace_id)

        assert await events_until(plain, "task.completed") == await events_until(usual, "task.completed")


async def test_what_nobody_watches_is_not_read_and_who_comes_then_misses_nothing(
    own_system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    follow = queries.follow

    async def counted(*args: Any, **wanted: Any) -> Listing[Event]:
        page = await follow(*args, **wanted)
        read.extend(event.seq for event in page.rows)
        return page

    monkeypatch.setattr(queries, "follow", counted)
    for _ in range(20):
        await own_system.client.dispatch("echo", {"message": "x"})
    assert read == []

    async with watching(own_system, "/api/v1/ws?after=0") as frame:
        await own_system.client.dispatch("echo", {"message": "x"})
        events = await events_until_count(frame, 21)

    assert [event["seq"] for event in events] == list(range(1, 22))


async def test_a_change_made_through_one_orchestrator_is_seen_through_another(system: System) -> None:
    trace_id = uuid4()
    async with _restarted(system), watching(system, f"/ws/{trace_id}") as frame:
        await frame()
        await system.client.dispatch("echo", {"message": "x"}, trace_id=trace_id)

        assert [event["kind"] for event in await events_until(frame, "task.dispatched")] == ["task.dispatched"]


async def test_an_idle_reader_gets_heartbeats_with_its_position(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.1)
    async with watching(system, f"/ws/{uuid4()}") as frame:
        hello = await frame()
        await system.client.dispatch("echo", {"message": "somebody else's"})

        beats = [await frame() for _ in range(5)]

    assert {beat["type"] for beat in beats} == {"heartbeat"}
    assert beats[-1]["seq"] == hello["seq"] + 1


async def test_a_reader_that_stops_reading_is_dropped_with_a_code_that_says_so_and_hurts_nobody(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "BACKLOG", 50)
    await system.start_agent(slots=2)
    async with watching(system, "/api/v1/ws") as frame, _stuck_reader(system) as stuck:
        await frame()
        script = "import sys\nfor n in range(400): sys.stdout.write('x' * 65535 + '\\n'); sys.stdout.flush()"
        await system.client.dispatch("shell_script", {"argv": ["python3", "-c", script]})

        seen = await events_until(frame, "task.completed")
        with pytest.raises(ConnectionClosed) as closed:
            await _read_to_the_end(stuck)

    assert sum(len(event["data"].get("text", "")) for event in seen) == 400 * 65536
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == live.FELL_BEHIND
    assert "after=" in closed.value.rcvd.reason


async def test_a_reader_that_neither_reads_nor_answers_is_cut_off(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than the output takes to fill what lies between server and reader: before that a close would get through.
    monkeypatch.setattr(main, "PING_SECONDS", 4.0)
    monkeypatch.setattr(websocket, "GIVE_UP_SECONDS", 0.1)
    monkeypatch.setattr(subscription, "BACKLOG", 50)
    await system.start_agent(slots=2)
    async with _restarted(system), _stuck_reader(system) as stuck:
        stuck.transport.pause_reading()
        script = "import sys\nfor n in range(400): sys.stdout.write('x' * 65535 + '\\n'); sys.stdout.flush()"
        await system.client.dispatch("shell_script", {"argv": ["python3", "-c", script]})

        def is_cut_off() -> bool:
            ends = psutil.Process().net_connections("tcp")
            return all(end.raddr[1:] != stuck.local_address[1:2] for end in ends)

        await eventually(is_cut_off, timeout=60)
        stuck.transport.resume_reading()
        with pytest.raises(ConnectionClosed) as closed:
            await _read_to_the_end(stuck)

    assert closed.value.rcvd is None


@asynccontextmanager
async def _stuck_reader(system: System) -> AsyncIterator[ClientConnection]:
    """A client that takes nothing from its socket until somebody calls `recv`."""
    async with connect(system.websocket + "/api/v1/ws", max_queue=1, compression=None) as socket:
        await socket.recv()
        yield socket


async def _read_to_the_end(socket: ClientConnection) -> None:
    async with asyncio.timeout(20):
        while True:
            await socket.recv()


@pytest.mark.parametrize(
    "query", ["task_id=x", "trace_id=1", "agent_id=%00", "after=-1", "after=x", "after=99999999999999999999999"]
)
async def test_bad_parameters_are_refused_with_a_code_and_the_reason(system: System, query: str) -> None:
    async with connect(f"{system.websocket}/api/v1/ws?{query}") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == BAD_PARAMETERS
    assert query.split("=")[0] in closed.value.rcvd.reason


async def test_a_reader_may_send_what_it_likes(system: System) -> None:
    trace_id = uuid4()
    async with connect(f"{system.websocket}/ws/{trace_id}") as socket:
        await socket.recv()
        for frame in ("hello", b"\x00\xff", "{" * 10_000):
            await socket.send(frame)
        await system.client.dispatch("echo", {"message": "x"}, trace_id=trace_id)

        assert json.loads(await socket.recv())["event"]["kind"] == "task.dispatched"


async def test_a_frame_of_the_largest_size_is_taken_and_a_larger_one_ends_the_connection(system: System) -> None:
    async with connect(f"{system.websocket}/api/v1/ws") as socket:
        await socket.recv()
        await socket.send(b"x" * MOST_FRAME_BYTES)
        await system.client.dispatch("echo", {"message": "x"})
        assert json.loads(await socket.recv())["event"]["kind"] == "task.dispatched"

        await socket.send(b"x" * (MOST_FRAME_BYTES + 1))
        async with asyncio.timeout(10):
            await socket.wait_closed()

    assert socket.close_code == CloseCode.MESSAGE_TOO_BIG


async def test_a_position_that_no_event_has_is_refused(system: System) -> None:
    async with connect(f"{system.websocket}/api/v1/ws?after=1000000") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == BAD_PARAMETERS
    assert "newest event" in closed.value.rcvd.reason


async def test_everything_recent_can_be_read_from_the_beginning(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "BACKLOG", 40)
    monkeypatch.setattr(hub, "RECENT", 30)
    begin = await position(system)
    async with watching(system, "/api/v1/ws") as earlier:
        await earlier()
        await asyncio.gather(*(system.client.dispatch("echo", {"message": "x"}) for _ in range(100)))
        await events_until_count(earlier, 100)

        async with watching(system, f"/api/v1/ws?after={begin}") as frame:
            events = await events_until_count(frame, 100)

    assert [event["seq"] for event in events] == list(range(begin + 1, begin + 101))


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
async def test_a_page_of_somebody_else_cannot_watch(system: System, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"{system.websocket}/api/v1/ws", additional_headers={"Origin": origin}):
            pass

    assert refused.value.response.status_code == 403


async def test_a_page_whose_name_was_made_to_point_here_is_refused(system: System) -> None:
    async with httpx2.AsyncClient() as browser:
        url = f"http://127.0.0.1:{system.settings.port}/api/v1/agents"
        refused = await browser.get(url, headers={"Host": "evil.example"})
        allowed = await browser.get(url, headers={"Host": f"localhost:{system.settings.port}"})

        foreign = await browser.post(f"{url}/x/resume", headers={"Origin": "https://evil.example"})

    assert (refused.status_code, refused.json()["error_code"]) == (403, 1002)
    assert (foreign.status_code, foreign.json()["error_code"]) == (403, 1002)
    assert allowed.status_code == 200


@pytest.mark.own_ledger
async def test_readiness_comes_back_after_the_connection_that_listens_was_lost(
    own_system: System, postgres: Postgres
) -> None:
    await eventually(own_system.client.ready)
    await postgres.terminate_sessions(own_system.settings.database_url)

    await eventually(own_system.client.ready, timeout=20)
    trace_id = uuid4()
    async with watching(own_system, f"/ws/{trace_id}") as frame:
        await frame()
        await own_system.client.dispatch("echo", {"message": "x"}, trace_id=trace_id)
        assert await events_until(frame, "task.dispatched")
