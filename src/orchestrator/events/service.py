"""The use cases of events: read those of a task."""

from uuid import UUID

from orchestrator.database.pool import Pool
from orchestrator.events import queries
from orchestrator.events.model import Event


class EventService:
    """Reads the log of what happened."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def of_task(self, task_id: UUID, *, after: int, limit: int) -> list[Event]:
        """Return events of a task numbered above `after`, oldest first, at most `limit` and some MiB of them."""
        async with self._pool.acquire() as db:
            head = await queries.head(db)
            page = await queries.follow(db, after=after, until=head, limit=limit, task_id=task_id)
        return page.rows
