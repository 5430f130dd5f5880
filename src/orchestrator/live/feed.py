"""Read new events from the ledger, in order, as soon as they are committed."""

from collections.abc import Callable, Sequence

from common.loop import Wake
from orchestrator.database.notifications import listen
from orchestrator.database.pool import Pool
from orchestrator.events import queries
from orchestrator.events.model import Event
from orchestrator.live.hub import Hub

CHANNEL = "chiffon_event"
# An event of output can hold some hundred KiB.
PAGE = 200


class FollowEvents:
    """Hands events to the hub. Numbers have no gaps and become visible in order, so none can be missed.

    `heard` is shown them, too.
    """

    def __init__(self, pool: Pool, hub: Hub, *, heard: Callable[[Sequence[Event]], None] | None = None) -> None:
        self._pool = pool
        self._hub = hub
        self._heard = heard

    async def run_once(self) -> int:
        async with self._pool.acquire() as db:
            head = await queries.head(db)
            if head <= self._hub.position:
                return 0
            events = await queries.follow(db, after=self._hub.position, until=head, limit=PAGE)
        self._hub.publish(events)
        if self._heard is not None:
            self._heard(events)
        return len(events)


async def listen_for_events(database_url: str, wake: Wake, *, well: Callable[[], None]) -> None:
    """Ring a bell when anyone has written events; raises ConnectionError when the connection is lost.

    `well` is called when it listens.
    """

    def heard() -> None:
        well()
        wake.ring()

    await listen(database_url, CHANNEL, heard)
