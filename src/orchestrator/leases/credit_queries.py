"""SQL about credit: how much work agents ask for, what they were granted, and which grants were lost."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from common.messages import Credit
from orchestrator.database.pool import Connection
from orchestrator.registry.model import Room
from orchestrator.registry.queries import ROOM_COLUMNS, credit_taken_in, rooms_of
from orchestrator.tasks.columns import COLUMNS
from orchestrator.tasks.model import Task


def credited(parameter: str, *, after: str) -> str:
    """Return CTEs that take in credit, once the CTE `after` holds its rows; the last one, `credited`, has the room."""
    return f"""
    agents AS MATERIALIZED (
        SELECT agent.agent_id, said.credit_number, said.credit_limit, said.received
          FROM jsonb_to_recordset({parameter}::jsonb)
                 AS said (agent_id uuid, session uuid, credit_number bigint, credit_limit bigint, received bigint)
          JOIN agent ON agent.agent_id = said.agent_id AND agent.boot_id = said.session
         WHERE (SELECT count(*) FROM {after}) >= 0
         ORDER BY agent.agent_id
           FOR UPDATE OF agent
    ), credited AS (
        UPDATE agent
           SET {credit_taken_in("agents").lstrip()}
          FROM agents
         WHERE agent.agent_id = agents.agent_id
     RETURNING {ROOM_COLUMNS}
    )"""  # noqa: S608 - constants only


CREDIT = "WITH " + credited("$1", after="(SELECT) AS nothing") + " SELECT * FROM credited"  # noqa: S608 - constants only


def returned(columns: str, *, of: str) -> str:
    """Return the end of a statement that changes leases, behind `events.told`.

    It returns two columns of the CTE `of`, with the tasks, and the room of the agents in `credited`.
    """
    return f"""
    SELECT {columns}, NULL::uuid AS agent_id, NULL::bigint AS room, NULL::bigint AS credit, NULL::bigint AS granted
      FROM {of}
     UNION ALL
    SELECT NULL, NULL, agent_id, room, credit, granted FROM credited
"""  # noqa: S608 - constants only


# Running tasks of a session that its agent does not name in its heartbeat, if it misses more than was noted as lost
# before: else what it does not name is on its way. Their leases begin anew, since the agent counts them from that
# heartbeat; those that an agent still has not got after three times a lease are left to end.
GRANT_AGAIN = f"""
    WITH held AS (
        SELECT task.task_id
          FROM task
          JOIN unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS session (agent_id, claim_id, missing)
            ON task.agent_id = session.agent_id AND task.claim_id = session.claim_id
          JOIN agent ON agent.agent_id = session.agent_id AND agent.boot_id = session.claim_id
         WHERE task.status = 'running' AND task.task_id <> ALL(agent.current_tasks) AND session.missing > agent.lost
           AND task.started_at > now() - 3 * $4::interval AND agent_may_work(agent.agent_id) <> 'shut_out'
         ORDER BY task.task_id
           FOR UPDATE OF task
    )
    UPDATE task SET lease_expires_at = now() + $4::interval
      FROM held
     WHERE task.task_id = held.task_id AND task.status = 'running'
 RETURNING {COLUMNS}, now() AS read_at
"""  # noqa: S608 - constants only

# A lease that ended without its agent ever hearing of it takes no room any more. Agents say the same in one heartbeat
# after another, so this is a sum, and only what the newest message says counts: in the meantime a grant may have come,
# and what it was for have ended.
NOTE_LOST = """
    WITH held AS MATERIALIZED (
        SELECT new.*
          FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
                 AS new (agent_id, session, number, received, lost)
          JOIN agent ON agent.agent_id = new.agent_id AND agent.boot_id = new.session
                    AND agent.credit_number = new.number AND agent.lost < new.lost
         ORDER BY agent.agent_id
           FOR UPDATE OF agent
    )
    UPDATE agent SET lost = greatest(agent.lost, least(held.lost, agent.granted - held.received))
      FROM held
     WHERE agent.agent_id = held.agent_id
"""


async def take_in(db: Connection, credits: Mapping[UUID, Credit]) -> list[Room]:
    """Note for how much work agents ask, and return their room; what an earlier session asks for counts no more."""
    return rooms_of(await db.fetch(CREDIT, credit_rows(credits))) if credits else []


async def grant_again(db: Connection, missing: Mapping[UUID, tuple[UUID, int]], *, lease: timedelta) -> list[Task]:
    """Prolong the leases of tasks that run in sessions, and that their agents' heartbeats do not name.

    `missing` holds of each agent the session, and how many of its grants never came.
    """
    sessions, counts = [session for session, _ in missing.values()], [count for _, count in missing.values()]
    rows = await db.fetch(GRANT_AGAIN, list(missing), sessions, counts, lease)
    return [Task.from_row(row) for row in rows]


async def note_lost(db: Connection, credits: Mapping[UUID, Credit], lost: Mapping[UUID, int]) -> None:
    """Note how many grants of its session never came to an agent and are over, by what it said last."""
    if lost:
        said = [credits[agent_id] for agent_id in lost]
        await db.execute(
            NOTE_LOST,
            list(lost),
            [one.session for one in said],
            [one.number for one in said],
            [one.received for one in said],
            list(lost.values()),
        )


def credit_rows(credits: Mapping[UUID, Credit]) -> list[dict[str, Any]]:
    """Return the parameter of `credited`: what agents ask for, in one list."""
    return [
        {
            "agent_id": str(agent_id),
            "session": str(one.session),
            "credit_number": one.number,
            "credit_limit": one.limit,
            "received": one.received,
        }
        for agent_id, one in credits.items()
    ]
