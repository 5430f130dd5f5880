"""SQL about what waits: the lines of tasks, who takes them, and which of them go first."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from orchestrator.database.pool import Connection
from orchestrator.leases.model import Asker, Line
from orchestrator.registry.queries import ROOM
from orchestrator.tasks.columns import COLUMNS
from orchestrator.tasks.model import Task

# Tasks whose time has come wait in their lines again.
WAKE = """
    UPDATE task SET not_before = NULL
     WHERE task_id = ANY(ARRAY(
        SELECT task_id FROM task
         WHERE status = 'pending' AND not_before <= now()
         ORDER BY not_before LIMIT $1
           FOR UPDATE SKIP LOCKED
     ))
"""

# The first of each line of tasks that wait, step by step through the index `task_claimable`: each line costs one
# look-up, however long it is.
LINES = """
    WITH RECURSIVE line AS (
        (SELECT agent_type, work_type, aim FROM task
          WHERE status = 'pending' AND admitted AND not_before IS NULL
          ORDER BY agent_type, work_type, aim LIMIT 1)
         UNION ALL
        SELECT next.agent_type, next.work_type, next.aim
          FROM line
         CROSS JOIN LATERAL (
            SELECT agent_type, work_type, aim FROM task
             WHERE status = 'pending' AND admitted AND not_before IS NULL
               AND (agent_type, work_type, aim) > (line.agent_type, line.work_type, line.aim)
             ORDER BY agent_type, work_type, aim LIMIT 1
         ) AS next
    )
    SELECT agent_type, work_type, aim FROM line
"""

# Two that give by credit at the same time would choose the same agents.
ONE_GIVER_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtext('chiffon.give'))"

# Agents that take some of the work that waits, and take it through the broker, those with most room first. Whether one
# may have work is asked of those that are returned only.
ASKERS = f"""
    SELECT asker.agent_id, asker.agent_type, asker.boot_id, asker.work_types, asker.labels,
           CASE judged.verdict WHEN 'trial' THEN least(asker.room, 1) ELSE asker.room END AS room
      FROM (SELECT agent_id, agent_type, boot_id, work_types, labels, {ROOM} AS room
              FROM agent
             WHERE agent_type = ANY($1::text[]) AND ({ROOM} > 0 OR $5) AND worker_id IS NULL
               AND boot_id IS NOT NULL AND status IN ('online', 'busy') AND last_heartbeat_at >= now() - $3::interval
               AND EXISTS (SELECT FROM unnest($1::text[], $2::text[]) AS line (pool, work_type)
                            WHERE line.pool = agent.agent_type
                              AND (agent.work_types = '{{}}' OR line.work_type = ANY(agent.work_types)))
             ORDER BY {ROOM} DESC, agent_id) AS asker
     CROSS JOIN LATERAL (SELECT agent_may_work(asker.agent_id) AS verdict) AS judged
     WHERE judged.verdict IN ('free', 'trial')
     LIMIT $4
"""  # noqa: S608 - constants only

# The best of each line; what another transaction holds is skipped. `rank` is the one order: the lowest goes first.
WAITING = f"""
    SELECT {COLUMNS}, now() AS read_at
      FROM task
     WHERE task_id = ANY(ARRAY(
        SELECT first.task_id
          FROM unnest($1::text[], $2::text[], $3::text[], $4::int[]) AS line (agent_type, work_type, aim, most)
         CROSS JOIN LATERAL (
            SELECT task_id FROM task
             WHERE status = 'pending' AND admitted AND not_before IS NULL
               AND agent_type = line.agent_type AND work_type = line.work_type AND aim = line.aim
               AND coalesce(expires_at > now(), true)
               AND task_id <> ALL($5::uuid[])
             ORDER BY rank, dispatch_no
             LIMIT line.most
               FOR UPDATE SKIP LOCKED
         ) AS first
     ))
     ORDER BY rank, dispatch_no
"""  # noqa: S608 - constants only

# `coalesce` keeps the planner off the index of what waits, as in `queries.LEASE`.
REST = """
    UPDATE task SET not_before = now() + new.rest
      FROM unnest($1::uuid[], $2::interval[]) AS new (task_id, rest)
     WHERE task.task_id = new.task_id AND coalesce(task.status = 'pending', false)
"""

# A grant that came too late (5002), or was handed back without a code, is no fault of the agent.
REFUSALS = """
    SELECT task_id, agent_id, now() - max(ended_at) AS ago
      FROM earlier_attempt
     WHERE task_id = ANY($1::uuid[]) AND NOT started AND error_code <> 5002
     GROUP BY task_id, agent_id
"""


async def wake(db: Connection, *, limit: int) -> None:
    """Put tasks whose time has come back into their lines."""
    await db.execute(WAKE, limit)


async def lines(db: Connection) -> list[Line]:
    """Return the lines of tasks that wait for nothing but an agent."""
    return [Line(*row) for row in await db.fetch(LINES)]


async def one_giver_at_a_time(db: Connection) -> None:
    """Wait until no other transaction gives by credit; until this one ends."""
    await db.execute(ONE_GIVER_AT_A_TIME)


async def askers(
    db: Connection, lines: Sequence[Line], *, lease: timedelta, offline_after: timedelta, most: int
) -> list[Asker]:
    """Return agents that take work of these lines, have credit and may have work, those with most room first.

    At most `most` of them; of lines with a placement constraint all that there are, also those without room: who is in
    reach of it can only be told from all.
    """
    with_all = any(line.aim for line in lines)
    types = {(line.pool, line.work_type) for line in lines}
    pools, work_types = [pool for pool, _ in types], [work_type for _, work_type in types]
    rows = await db.fetch(ASKERS, pools, work_types, offline_after, None if with_all else most, with_all)
    return [
        Asker(
            row["agent_id"],
            row["agent_type"],
            row["boot_id"],
            row["room"],
            lease,
            frozenset(row["work_types"]) or None,
            row["labels"],
        )
        for row in rows
    ]


async def waiting(db: Connection, most: Mapping[Line, int], *, besides: Collection[UUID] = ()) -> list[Task]:
    """Lock the best tasks of lines, at most so many of each, and return them in their order: the lowest rank first."""
    rows = await db.fetch(
        WAITING,
        [line.pool for line in most],
        [line.work_type for line in most],
        [line.aim for line in most],
        list(most.values()),
        list(besides),
    )
    return [Task.from_row(row) for row in rows]


async def rest(db: Connection, tasks: Mapping[UUID, timedelta]) -> None:
    """Have locked tasks wait for a while before they are looked at again."""
    if tasks:
        await db.execute(REST, list(tasks), list(tasks.values()))


async def refusals(db: Connection, task_ids: Collection[UUID]) -> dict[UUID, dict[UUID, timedelta]]:
    """Return for each task which agents refused it before anything of it ran, and how long ago they last did."""
    refused: dict[UUID, dict[UUID, timedelta]] = {}
    for row in await db.fetch(REFUSALS, list(task_ids)):
        refused.setdefault(row["task_id"], {})[row["agent_id"]] = row["ago"]
    return refused
