"""All SQL about placement."""

from collections.abc import Collection

import asyncpg

from orchestrator.database.pool import Connection
from orchestrator.placement.model import Aim

# Rows are written in the order of their keys, so that two dispatches never wait for each other in a circle; one that is
# used again is noted as used once an hour, not every time.
KEEP = """
    INSERT INTO aim (aim, agent_type, agent_id, requires, prefers)
    SELECT new.aim, new.agent_type, new.agent_id, new.requires, new.prefers
      FROM unnest($1::text[], $2::text[], $3::uuid[], $4::jsonb[], $5::jsonb[])
             AS new (aim, agent_type, agent_id, requires, prefers)
     ORDER BY new.aim
        ON CONFLICT (aim) DO UPDATE SET used_at = now() WHERE aim.used_at < now() - interval '1 hour'
"""

GET = "SELECT aim, agent_type, agent_id, requires, prefers FROM aim WHERE aim = ANY($1::text[])"

FORGET = """
    DELETE FROM aim
     WHERE used_at < now() - interval '1 day'
       AND NOT EXISTS (SELECT FROM task
                        WHERE task.aim = aim.aim AND task.aim <> ''
                          AND status IN ('awaiting_approval', 'pending', 'running'))
"""


async def keep(db: Connection, aims: Collection[Aim]) -> None:
    """Note aims of tasks that are stored now."""
    if aims:
        await db.execute(
            KEEP,
            [aim.key for aim in aims],
            [aim.agent_type for aim in aims],
            [aim.agent_id for aim in aims],
            [dict(aim.requires) for aim in aims],
            [dict(aim.prefers) for aim in aims],
        )


async def get(db: Connection, keys: Collection[str]) -> dict[str, Aim]:
    """Return aims by their keys."""
    return {row["aim"]: _aim(row) for row in await db.fetch(GET, list(keys))}


async def forget(db: Connection) -> None:
    """Remove aims that nothing uses."""
    await db.execute(FORGET)


def _aim(row: asyncpg.Record) -> Aim:
    return Aim(row["aim"], row["agent_type"], row["agent_id"], row["requires"], row["prefers"])
