"""All SQL about probes."""

from datetime import timedelta
from uuid import UUID

from orchestrator.database.pool import Connection

SENT = """
    INSERT INTO probe (orchestrator_id) VALUES ($1)
        ON CONFLICT (orchestrator_id) DO UPDATE SET sent_at = now()
"""

RETURNED = "UPDATE probe SET returned_at = now() WHERE orchestrator_id = ANY($1::uuid[])"

SILENCE = """
    SELECT now() - returned_at FROM probe WHERE orchestrator_id = $1 AND returned_at IS NOT NULL
"""

FORGET_OLD = "DELETE FROM probe WHERE sent_at < now() - $1::interval"


async def sent(db: Connection, orchestrator_id: UUID) -> None:
    """Note that a probe was sent."""
    await db.execute(SENT, orchestrator_id)


async def returned(db: Connection, orchestrator_ids: list[UUID]) -> None:
    """Note that probes of these orchestrators came back, to whomever."""
    await db.execute(RETURNED, orchestrator_ids)


async def silence(db: Connection, orchestrator_id: UUID) -> timedelta | None:
    """Return how long ago a probe last came back; None when none ever did."""
    waited: timedelta | None = await db.fetchval(SILENCE, orchestrator_id)
    return waited


async def forget_old(db: Connection, *, older_than: timedelta) -> None:
    """Remove what is known of orchestrators that are long gone."""
    await db.execute(FORGET_OLD, older_than)
