"""Following the ledger over connections that break."""

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.client import connect

from chiffon import ApiError, Client, Event, ServerUnreachable
from tests.eventually import eventually
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator

FELL_BEHIND = 4008
CUT = 1011
SILENT = None
TIME_LIMIT = 10


async def read(client: Client, count: int, *, after: int | None = 0) -> list[Event]:
    events: list[Event] = []
    async with aclosing(client.watch(after=after)) as watched:
        async for event in watched:
            events.append(event)
            if len(events) == count:
                break
    return events


@pytest.mark.parametrize("code", [FELL_BEHIND, CUT, 1001])
async def test_a_reader_misses_nothing_and_sees_nothing_twice_across_lost_connections(
    fake: FakeOrchestrator, url: str, code: int
) -> None:
    for number in range(50):
        fake.add_event("task.progress", None, progress=str(number))
    fake.cuts = [(7, code), (0, code), (20, code), (1, code)]

    async with Client(url) as client:
        events = await read(client, 50)

    assert [event.seq for event in events] == list(range(1, 51))
    assert [feed["after"] for feed in fake.feeds] == ["0", "7", "7", "27", "28"]


async def test_a_reader_without_a_position_resumes_from_where_it_began(fake: FakeOrchestrator, url: str) -> None:
    fake.add_event("agent.registered", None)
    fake.cuts = [(0, CUT)]

    async with Client(url) as client, aclosing(client.watch()) as watched:
        coming = asyncio.create_task(anext(watched))
        await eventually(lambda: len(fake.feeds) == 2)
        fake.add_event("task.dispatched", None)

        assert (await coming).seq == 2
    assert fake.feeds[1]["after"] == "1"


async def test_parameters_that_are_refused_are_an_error_and_not_retried(fake: FakeOrchestrator, url: str) -> None:
    async with Client(url) as client:
        with pytest.raises(ApiError, match="after must not be negative"):
            await read(client, 1, after=-1)

    assert len(fake.feeds) == 1


async def test_a_feed_that_was_never_reached_gives_up_soon(nobody_url: str) -> None:
    async with Client(nobody_url, patience=timedelta(hours=1)) as client:
        with pytest.raises(ServerUnreachable):
            await read(client, 1)


async def test_filters_are_sent_with_every_connection(fake: FakeOrchestrator, url: str) -> None:
    task_id = str(uuid4())
    fake.add_event("task.failed", task_id)
    fake.cuts = [(0, CUT)]

    async with (
        Client(url) as client,
        aclosing(client.watch(task_id=task_id, types=["task.failed"], after=0)) as watched,
    ):
        await anext(watched)

    assert [(feed["task_id"], feed["type"]) for feed in fake.feeds] == [(task_id, "task.failed")] * 2


async def test_events_that_come_again_are_seen_once(fake: FakeOrchestrator, url: str) -> None:
    for number in range(20):
        fake.add_event("task.progress", None, progress=str(number))
    fake.cuts = [(7, CUT), (9, CUT)]
    fake.overlap = 3

    async with Client(url) as client:
        events = await read(client, 20)

    assert [event.seq for event in events] == list(range(1, 21))


async def test_a_connection_that_falls_silent_is_replaced(
    fake: FakeOrchestrator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chiffon.feed.SILENCE", timedelta(seconds=0.2))
    fake.add_event("agent.registered", None)
    fake.cuts = [(0, SILENT)]

    async with Client(url) as client, asyncio.timeout(TIME_LIMIT):
        [event] = await read(client, 1)

    assert event.seq == 1


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After the first connection so many cannot be made; the number goes down with each."""
    to_come = [0]
    connections = 0

    def attempt(*arguments: Any, **options: Any) -> connect:
        nonlocal connections
        connections += 1
        if connections > 1 and to_come[0] > 0:
            to_come[0] -= 1
            raise ConnectionRefusedError("away")
        return connect(*arguments, **options)

    monkeypatch.setattr("chiffon.feed.connect", attempt)
    monkeypatch.setattr("chiffon.feed.FIRST_PAUSE", timedelta(milliseconds=1))
    monkeypatch.setattr("chiffon.feed.LONGEST_PAUSE", timedelta(milliseconds=10))
    return to_come


async def test_a_feed_survives_any_number_of_failures_within_its_patience(
    fake: FakeOrchestrator, url: str, outage: list[int]
) -> None:
    fake.add_event("agent.registered", None)
    fake.cuts = [(0, CUT)]
    outage[0] = 12

    async with Client(url, patience=timedelta(hours=1)) as client, asyncio.timeout(TIME_LIMIT):
        [event] = await read(client, 1)

    assert (event.seq, outage) == (1, [0])


async def test_a_feed_is_given_up_after_its_patience(fake: FakeOrchestrator, url: str, outage: list[int]) -> None:
    fake.cuts = [(0, CUT)]
    outage[0] = 1_000_000

    async with Client(url, patience=timedelta(seconds=0.1)) as client, asyncio.timeout(TIME_LIMIT):
        with pytest.raises(ServerUnreachable):
            await read(client, 1)
