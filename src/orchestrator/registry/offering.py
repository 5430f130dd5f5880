"""The offers of the agents at work, read from the ledger no more often than they have to be."""

import time
from collections.abc import Callable
from datetime import timedelta

from orchestrator.database.pool import Pool
from orchestrator.outbox.offers import ANYTHING, Offers
from orchestrator.registry import queries
from orchestrator.settings import STANDARD


class Offering:
    """Remembers the offers for `fresh_for`: a ticket that an agent cannot use meanwhile comes back from it."""

    def __init__(
        self,
        pool: Pool,
        *,
        offline_after: timedelta = STANDARD.agent_offline_after,
        fresh_for: timedelta = timedelta(0),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._offline_after = offline_after
        self._fresh_for = fresh_for.total_seconds()
        self._now = now
        self._offers = ANYTHING
        self._read_at: float | None = None

    async def read(self) -> Offers:
        """Return the offers, at most `fresh_for` old."""
        now = self._now()
        if self._read_at is None or now - self._read_at >= self._fresh_for:
            async with self._pool.acquire() as db:
                self._offers = await queries.offers(db, offline_after=self._offline_after)
            self._read_at = now
        return self._offers
