"""Read new events from the ledger, in order, as soon as they are committed."""

from collections.abc import Callable, Sequence
from typing import Protocol

from common.loop import Wake
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


class FollowEvents:
    """Hands events to the hub. Numbers have no gaps and become visible in order, so none can be missed.

    While nobody wants to know of any they are not even read.
    """

    def __init__(self, pool: Pool, hub: Hub, *, listener: Listener | None = None) -> None:
        self._pool = pool
        self._hub = hub
        self._listener = listener

    async def run_once(self) -> int:
        async with self._pool.acquire() as db:
            if not self._is_wanted:
                newest = await queries.head(db)
                # Who came meanwhile follows from where the hub was.
                if not self._is_wanted:
                    self._hub.start_at(max(self._hub.position, newest))
                    return 0
            events = await queries.follow(db, after=self._hub.position, until=queries.NEWEST, limit=PAGE)
        if not events:
            return 0
        if self._listener is not None:
            self._listener.heard(events)
        if self._hub.has_readers:
            await self._hub.publish(events)
        else:
            self._hub.start_at(events[-1].seq)
        return len(events)

    @property
    def _is_wanted(self) -> bool:
        return self._hub.has_readers or (self._listener is not None and self._listener.listens)


async def listen_for_events(database_url: str, wake: Wake, *, well: Callable[[], None]) -> None:
    """Ring a bell when anyone has written events; raises ConnectionError when the connection is lost.

    `well` is called when it listens.
    """

    def heard() -> None:
        well()
        wake.ring()

    await listen(database_url, CHANNEL, heard)
