"""The statement that stores new tasks, with first leases where agents have credit, and tells of them."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from orchestrator.database.pool import Connection
from orchestrator.events import queries as events
from orchestrator.events.model import NewEvent
from orchestrator.leases.credit_queries import returned
from orchestrator.registry.model import Room
from orchestrator.registry.queries import ROOM, ROOM_COLUMNS, rooms_of
from orchestrator.tasks.columns import columns
from orchestrator.tasks.model import NewTask


class Stored(NamedTuple):
    """The tasks that a statement stored, each with the session that it was leased to, or None; and the agents' room."""

    claims: Mapping[UUID, UUID | None]
    rooms: Sequence[Room]


# One statement and so one round trip, whose cost is most of that of a dispatch when nothing else is to do. ON CONFLICT
# covers both keys, task_id and request_id: what is known already is left alone, and its caller is answered otherwise.
# Counting agents has them written before the head of the events is locked.
# Its lease counts from after the locks, as in `leases.queries.LEASE`.
# A task goes to the agent that was chosen for it only as long as that agent has credit, may work, and has the pool and
# the kind of work; else it waits.
STORE = (
    f"""
    WITH new AS MATERIALIZED (
        SELECT *
          FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::jsonb[], $7::jsonb[],
                      $8::bytea[], $9::smallint[], $10::boolean[], $11::smallint[], $12::interval[], $13::uuid[],
                      $14::bigint[], $15::text[], $16::text[], $17::text[], $18::bytea[], $19::jsonb[], $20::text[],
                      $21::jsonb[], $22::text[], $23::uuid[])
                 WITH ORDINALITY AS new (task_id, request_id, trace_id, work_type, agent_type, parameters, hints,
                                         content_digest, priority, idempotent, max_attempts, expires_after, rerun_of,
                                         precedence, effect, policy_rule, policy_version, work_digest, confinement,
                                         name, labels, requested_by, agent_id, position)
    ), agents AS MATERIALIZED (
        SELECT agent_id, agent_type, work_types, boot_id, {ROOM} AS room
          FROM agent
         WHERE agent_id IN (SELECT agent_id FROM new) AND worker_id IS NULL AND boot_id IS NOT NULL
           AND status IN ('online', 'busy') AND agent_may_work(agent_id) = 'free'
         ORDER BY agent_id
           FOR UPDATE
    ), fit AS MATERIALIZED (
        SELECT * FROM (
            SELECT new.task_id, agents.agent_id, agents.boot_id AS claim_id, agents.room,
                   clock_timestamp() + $24::interval AS until,
                   row_number() OVER (PARTITION BY agents.agent_id ORDER BY new.position) AS nth
              FROM new JOIN agents USING (agent_id)
             WHERE agents.agent_type = new.agent_type
               AND (agents.work_types = '{{}}' OR new.work_type = ANY(agents.work_types))
        ) AS chosen WHERE nth <= room
    ), stored AS (
        INSERT INTO task (task_id, request_id, trace_id, work_type, agent_type, parameters, hints, content_digest,
                          priority, idempotent, max_attempts, first_in_order, admitted, expires_at, rerun_of,
                          precedence, rank, aim, effect, policy_rule, policy_version, work_digest, confinement,
                          name, labels, requested_by, status, agent_id, claim_id, lease_expires_at, attempt,
                          started_at)
        SELECT new.task_id, new.request_id, new.trace_id, new.work_type, new.agent_type, new.parameters, new.hints,
               new.content_digest, new.priority, new.idempotent, new.max_attempts, true, true,
               now() + make_interval(secs => extract(epoch FROM new.expires_after)), new.rerun_of, new.precedence,
               task_rank(now(), new.precedence, $25), '',
               new.effect, new.policy_rule, new.policy_version, new.work_digest, new.confinement, new.name, new.labels,
               new.requested_by,
               CASE WHEN fit.task_id IS NULL THEN 'pending' ELSE 'running' END, fit.agent_id, fit.claim_id, fit.until,
               CASE WHEN fit.task_id IS NULL THEN 0 ELSE 1 END,
               CASE WHEN fit.task_id IS NULL THEN NULL ELSE now() END
          FROM new LEFT JOIN fit USING (task_id)
         ORDER BY new.position
            ON CONFLICT DO NOTHING
     RETURNING task_id, agent_id, claim_id
    ), credited AS (
        UPDATE agent SET granted = agent.granted + leased.tasks
          FROM (SELECT agent_id, count(*) AS tasks FROM stored WHERE agent_id IS NOT NULL GROUP BY agent_id) AS leased
         WHERE agent.agent_id = leased.agent_id
     RETURNING {ROOM_COLUMNS}
    ), """  # noqa: S608 - constants only
    + events.told(
        26, of="JOIN stored USING (task_id) WHERE event.kind <> 'task.claimed' OR event.agent_id = stored.agent_id"
    )
    + returned("task_id, claim_id", of="stored")
    + "WHERE (SELECT count(*) FROM credited) >= 0"
)

# Planning takes as long as storing one task. The planner keeps the plan of a statement when one that is made for the
# values at hand looks no better, which it does as soon as it sees how many they are. Within a subquery it does not see
# them. Many tasks have a plan of their own each time, or their rows would be looked up in each other's lists.
FEW = 10
STORE_FEW = re.sub(r"\$\d+::\w+\[\]", r"(SELECT \g<0>)", STORE)


async def store(
    db: Connection,
    tasks: Sequence[NewTask],
    chosen: Mapping[UUID, UUID],
    told: Sequence[NewEvent],
    *,
    lease: timedelta,
    ageing: timedelta,
) -> Stored:
    """Store tasks that have no keys, aims or approvals, each under ids of its own in this call.

    `chosen` are the agents that some tasks go to, by the task; `told` holds what is told of each task that is stored,
    and the `task.claimed` of each that was chosen.
    """
    rows = await db.fetch(
        STORE_FEW if len(tasks) <= FEW else STORE,
        *columns(tasks),
        [chosen.get(task.task_id) for task in tasks],
        lease,
        ageing,
        *events.columns(told),
    )
    claims = {row["task_id"]: row["claim_id"] for row in rows if row["task_id"] is not None}
    return Stored(claims, rooms_of(rows))
