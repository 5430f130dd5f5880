"""All SQL about placement."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg

from orchestrator.database.pool import Connection
from orchestrator.outbox.model import Waiting
from orchestrator.outbox.offers import Offer, Offers
from orchestrator.placement.model import RECIPIENT_PREFIX, Aim, Host, Line

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

ALL = "SELECT aim, agent_type, agent_id, requires, prefers FROM aim"

# The lines of which a ticket is due and must be placed: one step in the index for each line, however many tickets it
# has. A line is the tickets of one work type in one queue: that of an aim, or of a pool of which some agents take such
# work and not all.
DUE = """
    WITH RECURSIVE line AS (
        (SELECT recipient, work_type FROM outbox WHERE kind = 'ticket' ORDER BY recipient, work_type LIMIT 1)
         UNION ALL
        SELECT next.recipient, next.work_type
          FROM line
         CROSS JOIN LATERAL (
            SELECT recipient, work_type FROM outbox
             WHERE kind = 'ticket' AND (recipient, work_type) > (line.recipient, line.work_type)
             ORDER BY recipient, work_type LIMIT 1
         ) AS next
    )
    SELECT recipient, work_type FROM line
     WHERE (starts_with(recipient, $1)
            OR (recipient, work_type) NOT IN (SELECT * FROM unnest($2::text[], $3::text[]))
               AND (recipient = ANY($6::text[])
                    OR (recipient, work_type) IN (SELECT * FROM unnest($4::text[], $5::text[]))))
       AND EXISTS (SELECT FROM outbox
                    WHERE kind = 'ticket' AND outbox.recipient = line.recipient AND outbox.work_type = line.work_type
                      AND due_at <= now())
"""

# Agents that speak through the broker, are there, and may have work; and for how much more they have room: what they
# run, and tickets that they were sent and have not used, takes some.
HOSTS = """
    SELECT agent.agent_id, agent.agent_type, agent.labels, agent.work_types,
           least(agent.slots - coalesce(busy.tasks, 0) - coalesce(sent.tickets, 0),
                 CASE judged.verdict WHEN 'trial' THEN 1 ELSE agent.slots END) AS free
      FROM agent
     CROSS JOIN LATERAL (SELECT agent_may_work(agent.agent_id) AS verdict) AS judged
      LEFT JOIN (SELECT agent_id, count(*)::int AS tasks FROM task WHERE status = 'running' GROUP BY agent_id) AS busy
        ON busy.agent_id = agent.agent_id
      LEFT JOIN (SELECT placed_on, count(*)::int AS tickets FROM outbox
                  WHERE kind = 'ticket' AND placed_on IS NOT NULL AND published_at IS NOT NULL AND due_at > now()
                  GROUP BY placed_on) AS sent
        ON sent.placed_on = agent.agent_id
     WHERE agent.worker_id IS NULL AND agent.status IN ('online', 'busy')
       AND agent.last_heartbeat_at >= now() - $1::interval AND judged.verdict IN ('free', 'trial')
"""

TAKE = """
    SELECT best.id, best.recipient, best.priority, best.body, best.urgency
      FROM unnest($1::text[], $2::text[], $3::int[]) AS line (recipient, work_type, room)
     CROSS JOIN LATERAL (
        SELECT id, recipient, priority, body, rank,
               greatest(priority, least(5, floor(extract(epoch FROM now() - rank) / extract(epoch FROM $4::interval))))
                 ::int AS urgency
          FROM outbox
         WHERE kind = 'ticket' AND outbox.recipient = line.recipient AND outbox.work_type = line.work_type
           AND due_at <= now()
         ORDER BY rank, id
         LIMIT line.room
           FOR UPDATE SKIP LOCKED
     ) AS best
     ORDER BY best.rank, best.id
"""

PLACE = """
    UPDATE outbox SET published_at = now(), due_at = now() + $3::interval, placed_on = placed.agent_id
      FROM unnest($1::bigint[], $2::uuid[]) AS placed (id, agent_id)
     WHERE outbox.id = placed.id
"""

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


async def everything(db: Connection) -> list[Aim]:
    """Return all aims: as many as there are different sets of hints in use."""
    return [_aim(row) for row in await db.fetch(ALL)]


async def due(db: Connection, offers: Offers) -> list[Line]:
    """Return the lines that have tickets to place."""
    for_all, for_one = offers.for_all(), offers.for_one()
    rows = await db.fetch(
        DUE,
        RECIPIENT_PREFIX,
        [pool for pool, _ in for_all],
        [work_type for _, work_type in for_all],
        [pool for pool, _ in for_one],
        [work_type for _, work_type in for_one],
        offers.with_any(),
    )
    return [Line(row["recipient"], row["work_type"]) for row in rows]


async def hosts(db: Connection, *, offline_after: timedelta) -> list[Host]:
    """Return the agents that may be sent work now."""
    rows = await db.fetch(HOSTS, offline_after)
    return [
        Host(row["agent_id"], row["agent_type"], row["labels"], max(0, row["free"]), Offer.of(row["work_types"]))
        for row in rows
    ]


async def take(db: Connection, room: Mapping[Line, int], *, ageing: timedelta) -> list[Waiting]:
    """Lock the best due tickets of lines, at most as many as there is room for, and return them in their order."""
    rows = await db.fetch(
        TAKE,
        [line.recipient for line in room],
        [line.work_type for line in room],
        list(room.values()),
        ageing,
    )
    return [Waiting(row["id"], row["recipient"], row["priority"], row["urgency"], row["body"]) for row in rows]


async def placed(db: Connection, places: Sequence[tuple[int, UUID]], *, ttl: timedelta) -> None:
    """Note which agent gets which ticket; one that is not used is due again after `ttl`."""
    if places:
        await db.execute(PLACE, [id for id, _ in places], [agent_id for _, agent_id in places], ttl)


async def forget(db: Connection) -> None:
    """Remove aims that nothing uses."""
    await db.execute(FORGET)


def _aim(row: asyncpg.Record) -> Aim:
    return Aim(row["aim"], row["agent_type"], row["agent_id"], row["requires"], row["prefers"])
