"""Read new events from the ledger, in order, as soon as they are committed."""

import asyncpg

from common.loop import Wake
from orchestrator.database.pool import Connection, Pool
from orchestrator.events import queries
from orchestrator.live.hub import Hub

CHANNEL = "chiffon_event"
PAGE = 1_000


class FollowEvents:
    """Hands events to the hub. Numbers have no gaps and become visible in order, so none can be missed."""

    def __init__(self, pool: Pool, hub: Hub) -> None:
        self._pool = pool
        self._hub = hub

    async def run_once(self) -> int:
        async with self._pool.acquire() as db:
            head = await queries.head(db)
            if head <= self._hub.position:
                return 0
            events = await queries.follow(db, after=self._hub.position, until=head, limit=PAGE)
        self._hub.publish(events)
        return len(events)


class ListenForEvents:
    """Rings a bell when anyone has written events. It holds a connection of its own."""

    def __init__(self, database_url: str, wake: Wake) -> None:
        self._database_url = database_url
        self._wake = wake

    async def listen(self) -> None:
        """Listen until the connection ends, and raise ConnectionError then."""
        connection = await asyncpg.connect(self._database_url, timeout=10)
        closed = Wake()
        try:
            connection.add_termination_listener(lambda _: closed.ring())
            await connection.add_listener(CHANNEL, self._heard)
            # Whatever was written before we listened.
            self._wake.ring()
            await closed.rung()
            raise ConnectionError("the connection that listens for events was closed")
        finally:
            await connection.close(timeout=2)

    def _heard(self, connection: Connection, pid: int, channel: str, payload: object) -> None:
        self._wake.ring()
