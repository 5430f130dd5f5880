"""Knows whether this orchestrator's probes come back."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from orchestrator.database.pool import Pool
from orchestrator.probes import queries

LONG_GONE = timedelta(days=1)


class ProbeService:
    """Keeps the times of the probes in the ledger, for a probe may come back to another orchestrator."""

    def __init__(self, pool: Pool, orchestrator_id: UUID) -> None:
        self._pool = pool
        self.orchestrator_id = orchestrator_id

    async def sent(self) -> None:
        """Note that a probe is on its way."""
        async with self._pool.acquire() as db:
            await queries.sent(db, self.orchestrator_id)

    async def returned(self, orchestrator_ids: Sequence[UUID]) -> None:
        """Note whose probes came back."""
        async with self._pool.acquire() as db:
            await queries.returned(db, list(orchestrator_ids))

    async def silence(self) -> timedelta | None:
        """Return how long ago a probe of ours last came back; None when none ever did."""
        async with self._pool.acquire() as db:
            return await queries.silence(db, self.orchestrator_id)

    async def tidy(self) -> None:
        """Forget orchestrators that are long gone."""
        async with self._pool.acquire() as db:
            await queries.forget_old(db, older_than=LONG_GONE)
