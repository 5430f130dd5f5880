"""Following the ledger over connections that break."""

import asyncio
from contextlib import aclosing
from datetime import timedelta
from uuid import uuid4

import pytest

from chiffon import ApiError, Client, Event, ServerUnreachable
from tests.eventually import eventually
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator

FELL_BEHIND = 4008
CUT = 1011


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
