"""What an orchestrator has written itself it does not read again, and those who watch see the same."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from orchestrator.database.pool import Pool, transaction
from orchestrator.events import queries
from orchestrator.events.model import Kind, NewEvent
from orchestrator.events.own import MOST, OwnEvents
from orchestrator.events.queries import Written
from orchestrator.live.feed import PAGE, FollowEvents, News
from orchestrator.live.frame import Page, encode
from orchestrator.live.hub import Hub
from orchestrator.live.subscription import Filter
from orchestrator.tasks.model import NewTask
from tests.factories import make_chunk, make_new_task, make_result
from tests.integration.orchestrator.on_credit import Agent, Orchestrator
from tests.integration.orchestrator.statements import open_counting_pool
from tests.integration.orchestrator.test_feed import Shown


class Watched:
    """A feed with one reader, of an orchestrator whose own events are `own`."""

    def __init__(self, pool: Pool, own: OwnEvents) -> None:
        self.hub, self.news, self.reader = Hub(), News(), Read()
        self.feed = FollowEvents(pool, self.hub, self.news, own)

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self.hub.watched():
            self.hub.attach(Filter(), self.reader, after=self.hub.position)
            yield


class Read(Shown):
    """A reader's outlet that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def show(self, page: Page) -> None:
        super().show(page)
        self.said += [frame.text for frame in page.frames]


@dataclass
class Front:
    """An orchestrator, and an agent that takes nothing until `_work`, and then one task at a time."""

    at: Orchestrator
    agent: Agent

    @property
    def own(self) -> OwnEvents:
        return self.at.own

    async def dispatch(self, task: NewTask) -> None:
        await self.at.dispatch(task)


async def open_front(pool: Pool) -> Front:
    front = Front(Orchestrator(pool), Agent(slots=0))
    await front.at.hears(front.agent)
    return front


@pytest.fixture
async def front(pool: Pool) -> Front:
    return await open_front(pool)


async def _work(front: Front) -> None:
    """Dispatch a task that is leased with its dispatch and one that waits, and finish both, with output."""
    front.agent.limit = 1
    await front.at.hears(front.agent)
    first, second = make_new_task(), make_new_task()
    await front.at.dispatch(first, second)
    chunks = [make_chunk(0, "größer 'als' \"alles\"\n", offset=0), make_chunk(1, "next", offset=22)]
    for task in (first, second):
        await front.agent.reports(front.at, make_result(task.task_id, front.agent.agent_id, chunks=chunks))
        await front.at.give()


async def _everything(pool: Pool) -> list[object]:
    async with pool.acquire() as db:
        page = await queries.follow(db, after=0, until=queries.NEWEST, limit=1000)
    return [json.loads(encode(event)) for event in page.rows]


async def _happen(pool: Pool) -> None:
    async with transaction(pool) as db:
        await queries.append(db, NewEvent(Kind.TASK_PROGRESS, "another orchestrator"))


async def test_own_events_are_shown_as_the_ledger_tells_them(pool: Pool, front: Front) -> None:
    watched = Watched(pool, front.own)
    await watched.feed.run_once()
    before = watched.hub.position
    with watched.reading():
        await _work(front)
        await watched.feed.run_once()

    ledger = await _everything(pool)
    assert [json.loads(said) for said in watched.reader.said] == ledger[before:]
    assert len(watched.reader.said) == 10


async def test_own_events_are_not_read(front: Front, ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_counting_pool(ledger_url, monkeypatch) as (counted, statements):
        watched = Watched(counted, front.own)
        await watched.feed.run_once()
        with watched.reading():
            await _work(front)
            with statements.counted() as asked:
                await watched.feed.run_once()
                watched.news.heard(str(watched.hub.position))
                await watched.feed.run_once()

    assert len(watched.reader.numbers) == 10
    assert asked == []


async def test_what_others_wrote_in_between_is_read_and_everything_is_shown_once_and_in_order(
    pool: Pool, front: Front
) -> None:
    watched = Watched(pool, front.own)
    await watched.feed.run_once()
    before = watched.hub.position
    with watched.reading():
        await _happen(pool)
        await front.dispatch(make_new_task())
        await _happen(pool)
        await front.dispatch(make_new_task())
        watched.news.heard(str(before + 4))
        await watched.feed.run_once()
        await front.dispatch(make_new_task())
        await watched.feed.run_once()

    assert watched.reader.numbers == list(range(before + 1, before + 6))


async def test_a_notification_that_is_faster_than_the_answer_waits_for_it(
    front: Front, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = NewEvent(Kind.TASK_PROGRESS, "a test")
    async with open_counting_pool(ledger_url, monkeypatch) as (counted, statements):
        watched = Watched(counted, front.own)
        await watched.feed.run_once()
        number = watched.hub.position + 1
        with watched.reading(), statements.counted() as asked:
            with front.own.writing():
                watched.news.heard(str(number))
                following = asyncio.create_task(watched.feed.run_once())
                await asyncio.sleep(0)
                front.own.add([event], Written(number - 1, datetime.now(UTC), [1]))
            await following
            await watched.feed.run_once()  # the bell that rang meanwhile

    assert watched.reader.numbers == [number]
    assert asked == []


async def test_a_statement_that_takes_long_does_not_hold_up_what_others_wrote(pool: Pool, front: Front) -> None:
    watched = Watched(pool, front.own)
    await watched.feed.run_once()
    with watched.reading(), front.own.writing():
        await _happen(pool)
        watched.news.heard(str(watched.hub.position + 1))
        async with asyncio.timeout(5):
            await watched.feed.run_once()

    assert len(watched.reader.numbers) == 1


async def test_own_events_behind_a_full_page_do_not_hide_the_rest_of_the_ledger(pool: Pool, front: Front) -> None:
    watched = Watched(pool, front.own)
    await watched.feed.run_once()
    before = watched.hub.position
    with watched.reading():
        for _ in range(PAGE):
            await _happen(pool)
        await front.dispatch(make_new_task())
        await _happen(pool)
        watched.news.heard(str(before + PAGE + 2))
        while await watched.feed.run_once():
            pass

    assert watched.reader.numbers == list(range(before + 1, before + PAGE + 3))


async def test_what_was_kept_for_a_reader_is_forgotten_when_it_has_left(pool: Pool, front: Front) -> None:
    watched = Watched(pool, front.own)
    await watched.feed.run_once()
    before = watched.hub.position
    with watched.reading():
        await front.dispatch(make_new_task())
    await watched.feed.run_once()

    assert front.own.take(after=before) == []


async def test_nothing_is_kept_while_nobody_watches(pool: Pool, front: Front) -> None:
    watched = Watched(pool, front.own)
    await front.dispatch(make_new_task())

    assert front.own.take(after=watched.hub.position) == []
    assert front.own.take(after=0) == []


def test_what_nobody_takes_in_time_is_left_to_the_ledger() -> None:
    own = OwnEvents()
    own.wanted = lambda: True
    told = [NewEvent(Kind.TASK_OUTPUT, "a test", task_id=uuid4())]
    for number in range(5):
        own.add(told, Written(number, datetime.now(UTC), [1]), {1: "x" * (MOST // 4)})

    assert own.take(after=0) == []
    assert [event.seq for event in own.take(after=2)] == [3, 4, 5]
