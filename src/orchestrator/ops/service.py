"""The use cases of this folder: look at the whole, without locking anything."""

from orchestrator.database.pool import Pool
from orchestrator.ops import queries
from orchestrator.ops.model import Snapshot
from orchestrator.tasks import queries as tasks
from orchestrator.tasks.model import Task


class OpsService:
    """Reads the ledger."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def snapshot(self) -> Snapshot:
        """Return what waits and runs, at one moment."""
        async with self._pool.acquire() as db, db.transaction(isolation="repeatable_read", readonly=True):
            return Snapshot(
                at=await queries.now(db),
                pools=await queries.pools(db),
                held_by_keys=await queries.held_by_keys(db),
                leases=await queries.leases(db),
                dead_letters=await queries.dead_letters(db),
            )

    async def last_ended(self, *, limit: int) -> list[Task]:
        """Return the tasks that ended last, the newest end first."""
        async with self._pool.acquire() as db:
            return await tasks.last_ended(db, limit=limit)
