"""The feed reads nothing for nobody, and whoever comes misses nothing."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries
from orchestrator.events.model import Kind, NewEvent
from orchestrator.live.feed import FollowEvents
from orchestrator.live.frame import Page
from orchestrator.live.hub import Hub
from orchestrator.live.subscription import Filter


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
    feed = FollowEvents(pool, hub)
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
    feed = FollowEvents(pool, hub)
    await _happen(pool, 3)
    await feed.run_once()
    assert hub.position == 3

    with hub.watched():
        assert hub.attach(Filter(), reader, after=0) is None
        hub.attach(Filter(), reader, after=3)
        await _happen(pool, 1)
        await feed.run_once()

    assert reader.numbers == [4]
