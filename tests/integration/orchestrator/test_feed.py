"""The feed reads nothing for nobody, and whoever comes misses nothing."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries
from orchestrator.events.model import Kind, NewEvent
from orchestrator.live.feed import PAGE, FollowEvents, News, listen_for_events
from orchestrator.live.frame import Page
from orchestrator.live.hub import Hub
from orchestrator.live.subscription import Filter
from tests.eventually import eventually
from tests.integration.orchestrator.statements import open_counting_pool


class Shown:
    """A reader's outlet that remembers the numbers of what it was shown."""

    is_ready = True

    def __init__(self) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self.numbers: list[int] = []

    def show(self, page: Page) -> None:
        self.numbers += [frame.seq for frame in page.frames]

    def say(self, text: str) -> None:
        raise AssertionError(text)


async def _happen(pool: Pool, count: int) -> None:
    async with transaction(pool) as db:
        await queries.append(db, *(NewEvent(Kind.TASK_PROGRESS, "a test") for _ in range(count)))


async def test_a_reader_that_comes_while_the_feed_looks_for_nobody_misses_nothing(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, reader = Hub(), Shown()
    feed = FollowEvents(pool, hub, News())
    look = queries.head
    with ExitStack() as stack:

        async def head(db: Connection) -> int:
            newest = await look(db)
            stack.enter_context(hub.watched())
            hub.attach(Filter(), reader, after=hub.position)
            return newest

        monkeypatch.setattr(queries, "head", head)
        await _happen(pool, 2)

        await feed.run_once()
        await feed.run_once()

    assert reader.numbers == [1, 2]


async def test_what_happened_while_nobody_watched_is_left_to_the_ledger(pool: Pool) -> None:
    hub, reader = Hub(), Shown()
    feed = FollowEvents(pool, hub, News())
    await _happen(pool, 3)
    await feed.run_once()
    assert hub.position == 3

    with hub.watched():
        assert hub.attach(Filter(), reader, after=0) is None
        hub.attach(Filter(), reader, after=3)
        await _happen(pool, 1)
        await feed.run_once()

    assert reader.numbers == [4]


async def test_news_tell_how_far_the_events_go(pool: Pool) -> None:
    news, heard = News(), asyncio.Event()
    listening = asyncio.create_task(listen_for_events(pool.database, news, well=heard.set))
    try:
        await heard.wait()
        assert news.take() is None
        await _happen(pool, 3)
        await _happen(pool, 2)

        await eventually(lambda: news.take() == 5)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_news_that_nobody_waits_for_cost_no_statement(
    pool: Pool, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, news, reader = Hub(), News(), Shown()
    await _happen(pool, 3)
    async with open_counting_pool(ledger_url, monkeypatch) as (counted, statements):
        feed = FollowEvents(counted, hub, news)
        news.heard("3")
        with statements.counted() as asked:
            await feed.run_once()
        with hub.watched():
            hub.attach(Filter(), reader, after=hub.position)
            await _happen(pool, 1)
            await feed.run_once()

    assert asked == []
    assert reader.numbers == [4]


async def test_news_are_read_with_one_statement_and_those_that_were_read_with_none(
    pool: Pool, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, news, reader = Hub(), News(), Shown()
    async with open_counting_pool(ledger_url, monkeypatch) as (counted, statements):
        feed = FollowEvents(counted, hub, news)
        with hub.watched():
            hub.attach(Filter(), reader, after=0)
            await feed.run_once()  # the first time the driver asks what the types are
            await _happen(pool, 2)
            news.heard("2")
            with statements.counted() as reading:
                more = await feed.run_once()
            news.heard("2")
            with statements.counted() as repeating:
                await feed.run_once()

    assert (len(reading), more, repeating) == (1, 0, [])
    assert reader.numbers == [1, 2]


async def test_a_page_that_is_full_is_followed_by_the_next(pool: Pool) -> None:
    hub, news, reader = Hub(), News(), Shown()
    feed = FollowEvents(pool, hub, news)
    with hub.watched():
        hub.attach(Filter(), reader, after=0)
        await _happen(pool, PAGE + 1)
        news.heard(str(PAGE + 1))

        more = [await feed.run_once(), await feed.run_once()]

    assert more == [PAGE, 0]
    assert reader.numbers == list(range(1, PAGE + 2))


async def test_who_comes_while_news_are_on_their_way_sees_each_event_once(pool: Pool) -> None:
    hub, news, reader = Hub(), News(), Shown()
    feed = FollowEvents(pool, hub, news)
    await _happen(pool, 2)
    news.heard("2")
    await feed.run_once()
    await _happen(pool, 2)
    news.heard("4")
    with hub.watched():
        hub.attach(Filter(), reader, after=hub.position)
        await _happen(pool, 1)
        await feed.run_once()
        news.heard("5")
        await feed.run_once()

    assert reader.numbers == [3, 4, 5]
