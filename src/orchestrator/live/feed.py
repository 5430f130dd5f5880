"""Read new events from the ledger, in order, as soon as they are committed."""

from collections.abc import Callable, Sequence
from typing import Protocol

from common.loop import Wake
from common.postgres import Database
from orchestrator.database.notifications import listen
from orchestrator.database.pool import Pool
from orchestrator.events import queries
from orchestrator.events.model import Event
from orchestrator.live.hub import Hub

CHANNEL = "chiffon_event"
# An event of output can hold some hundred KiB.
PAGE = 200


class Listener(Protocol):
    """Somebody else who is shown events, while it wants to be."""

    @property
    def listens(self) -> bool: ...

    def heard(self, events: Sequence[Event]) -> None: ...


class News(Wake):
    """A bell that rings for new events, and what is known of how far they go."""

    def __init__(self) -> None:
        super().__init__()
        self._newest: int | None = None
        self._is_unknown = False

    def heard(self, newest: str) -> None:
        """Ring, for everything up to this event is in the ledger; an empty text does not say how far it goes."""
        if newest:
            self._newest = max(int(newest), self._newest or 0)
        else:
            self._is_unknown = True
        self.ring()

    def take(self) -> int | None:
        """Return the newest event that was heard of since this was asked last; None when only the ledger knows."""
        newest = None if self._is_unknown else self._newest
        self._newest, self._is_unknown = None, False
        return newest


class FollowEvents:
    """Hands events to the hub. Numbers have no gaps and become visible in order, so none can be missed.

    While nobody wants to know of any they are not even read: the news say how far the hub may go without.
    """

    def __init__(self, pool: Pool, hub: Hub, news: News, *, listeners: Sequence[Listener] = ()) -> None:
        self._pool = pool
        self._hub = hub
        self._news = news
        self._listeners = tuple(listeners)

    async def run_once(self) -> int:
        newest = self._news.take()
        if not self._is_wanted:
            if newest is None:
                async with self._pool.acquire() as db:
                    newest = await queries.head(db)
            # Who came meanwhile follows from where the hub was, at once.
            if self._is_wanted:
                return 1
            self._hub.start_at(max(self._hub.position, newest))
            return 0
        if newest is not None and newest <= self._hub.position:
            return 0
        # A page that has no more behind it was the last, until there are news.
        async with self._pool.acquire() as db:
            page = await queries.follow(db, after=self._hub.position, until=queries.NEWEST, limit=PAGE)
        if page.rows:
            await self._hand_on(page.rows)
        return len(page.rows) if page.has_more else 0

    async def _hand_on(self, events: Sequence[Event]) -> None:
        for listener in self._listeners:
            listener.heard(events)
        if self._hub.has_readers:
            await self._hub.publish(events)
        else:
            self._hub.start_at(events[-1].seq)

    @property
    def _is_wanted(self) -> bool:
        return self._hub.has_readers or any(listener.listens for listener in self._listeners)


async def listen_for_events(database: Database, news: News, *, well: Callable[[], None]) -> None:
    """Hear of it when anyone has written events; raises ConnectionError when the connection is lost.

    `well` is called when it listens.
    """

    def heard(newest: str) -> None:
        well()
        news.heard(newest)

    await listen(database, CHANNEL, heard)
