"""Look into the ledger, and move its time."""

from datetime import timedelta
from uuid import UUID

from orchestrator.database.pool import Pool
from orchestrator.events import queries
from orchestrator.events.model import Event


async def events_of(pool: Pool) -> list[Event]:
    """Return every event, oldest first."""
    async with pool.acquire() as db:
        return (await queries.follow(db, after=0, until=await queries.head(db), limit=10_000, most_bytes=2**40)).rows


async def kinds_of(pool: Pool, task_id: UUID) -> list[str]:
    """Return what happened to a task, in order."""
    return [event.kind for event in await events_of(pool) if event.task_id == task_id]


async def let_leases_run_out(pool: Pool) -> None:
    """Move the end of every lease into the past."""
    async with pool.acquire() as db:
        await db.execute("UPDATE task SET lease_expires_at = now() - interval '1 second' WHERE status = 'running'")


async def age(pool: Pool, task_id: UUID, by: timedelta) -> None:
    """Let a waiting task be older than it is."""
    async with pool.acquire() as db:
        await db.execute(
            "UPDATE task SET rank = rank - $2::interval, created_at = created_at - $2::interval WHERE task_id = $1",
            task_id,
            by,
        )
