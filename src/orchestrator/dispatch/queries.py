"""The statement that stores new tasks, with their tickets or their first leases, and tells of them."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from orchestrator.database.pool import Connection
from orchestrator.dispatch.standing import StandingClaim
from orchestrator.events import queries as events
from orchestrator.events.model import NewEvent
from orchestrator.events.queries import WRITE, Written
from orchestrator.tasks.columns import columns
from orchestrator.tasks.model import NewTask

# One statement and so one round trip, whose cost is most of that of a dispatch when nothing else is to do. ON CONFLICT
# covers both keys, task_id and request_id: what is known already is left alone, and its caller is answered otherwise.
# Asking for `numbers` locks the head of the events; counting attempts and tickets before has them written before.
# A task goes to the agent that claimed in advance only as long as that agent may work and
# has the type and the kind of work; else it gets a ticket, which counts as published when there was a place for it.
STORE = (
    """
    WITH new AS MATERIALIZED (
        SELECT *
          FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::jsonb[], $7::jsonb[],
                      $8::bytea[], $9::smallint[], $10::boolean[], $11::smallint[], $12::interval[], $13::uuid[],
                      $14::bigint[], $15::text[], $16::text[], $17::text[], $18::bytea[], $19::jsonb[], $20::text[],
                      $21::jsonb[], $22::text[], $23::uuid[], $24::uuid[], $25::boolean[])
                 WITH ORDINALITY AS new (task_id, request_id, trace_id, work_type, agent_type, parameters, hints,
                                         content_digest, priority, idempotent, max_attempts, expires_after, rerun_of,
                                         precedence, effect, policy_rule, policy_version, work_digest, confinement,
                                         name, labels, requested_by, agent_id, claim_id, is_published, position)
    ), fit AS MATERIALIZED (
        SELECT new.task_id, new.agent_id, new.claim_id, now() + $26::interval AS until
          FROM new
          JOIN agent ON agent.agent_id = new.agent_id
         WHERE agent.agent_type = new.agent_type AND new.work_type = ANY(agent.work_types) AND agent.worker_id IS NULL
           AND agent.status IN ('online', 'busy') AND agent_may_work(agent.agent_id) = 'free'
    ), stored AS (
        INSERT INTO task (task_id, request_id, trace_id, work_type, agent_type, parameters, hints, content_digest,
                          priority, idempotent, max_attempts, first_in_order, admitted, expires_at, rerun_of,
                          precedence, rank, aim, effect, policy_rule, policy_version, work_digest, confinement,
                          name, labels, requested_by, status, agent_id, claim_id, lease_expires_at, attempt, fence,
                          started_at)
        SELECT new.task_id, new.request_id, new.trace_id, new.work_type, new.agent_type, new.parameters, new.hints,
               new.content_digest, new.priority, new.idempotent, new.max_attempts, true, true,
               now() + make_interval(secs => extract(epoch FROM new.expires_after)), new.rerun_of, new.precedence,
               task_rank(now(), new.precedence, $27), '',
               new.effect, new.policy_rule, new.policy_version, new.work_digest, new.confinement, new.name, new.labels,
               new.requested_by,
               CASE WHEN fit.task_id IS NULL THEN 'pending' ELSE 'running' END, fit.agent_id, fit.claim_id, fit.until,
               CASE WHEN fit.task_id IS NULL THEN 0 ELSE 1 END, CASE WHEN fit.task_id IS NULL THEN 0 ELSE 1 END,
               CASE WHEN fit.task_id IS NULL THEN NULL ELSE now() END
          FROM new LEFT JOIN fit USING (task_id)
         ORDER BY new.position
            ON CONFLICT DO NOTHING
     RETURNING task_id, request_id, rank, agent_id, claim_id
    ), tried AS (
        INSERT INTO attempt (task_id, number, fence, agent_id, claim_id)
        SELECT task_id, 1, 1, agent_id, claim_id FROM stored WHERE agent_id IS NOT NULL
     RETURNING task_id
    ), ticket AS (
        INSERT INTO outbox (kind, recipient, task_id, priority, body, rank, due_at, published_at)
        SELECT 'ticket', new.agent_type, new.task_id, new.priority,
               jsonb_build_object(
                   'payload', jsonb_build_object('task_id', new.task_id, 'work_type', new.work_type, 'fence', 0),
                   'trace_id', new.trace_id, 'request_id', new.request_id),
               stored.rank,
               CASE WHEN new.is_published THEN now() + $28::interval ELSE now() END,
               CASE WHEN new.is_published THEN now() END
          FROM new JOIN stored USING (task_id)
         WHERE stored.agent_id IS NULL
     RETURNING task_id
    ), told AS MATERIALIZED (
        SELECT event.*
          FROM unnest($29::text[], $30::text[], $31::text[], $32::uuid[], $33::uuid[], $34::uuid[], $35::uuid[],
                      $36::smallint[], $37::bytea[])
                 WITH ORDINALITY AS event (kind, actor, data, task_id, trace_id, request_id, agent_id, attempt, leaf,
                                           position)
          JOIN stored USING (task_id)
         WHERE event.kind <> 'task.claimed' OR event.agent_id = stored.agent_id
    ), """  # noqa: S608 - constants only
    + WRITE
    + """
    SELECT task_id, agent_id IS NOT NULL AS is_leased,
           NULL::bigint AS before, NULL::timestamptz AS at, NULL::bigint[] AS positions
      FROM stored
     UNION ALL
    SELECT NULL, NULL, before, at, positions
      FROM numbers
     WHERE (SELECT count(*) FROM tried) + (SELECT count(*) FROM ticket) >= 0
"""
)

# Planning takes as long as storing one task. The planner keeps the plan of a statement when one that is made for the
# values at hand looks no better, which it does as soon as it sees how many they are. Within a subquery it does not see
# them. Many tasks have a plan of their own each time, or their rows would be looked up in each other's lists.
FEW = 10
STORE_FEW = re.sub(r"\$\d+::\w+\[\]", r"(SELECT \g<0>)", STORE)

# An identity that was disabled gets nothing, not even once more what it was given before.
TAKEN = """
    SELECT a.agent_id, a.claim_id, a.task_id
      FROM unnest($1::uuid[], $2::uuid[]) AS claim (agent_id, claim_id)
      JOIN attempt a ON a.claim_id = claim.claim_id AND a.agent_id = claim.agent_id AND a.ended_at IS NULL
     WHERE agent_may_work(a.agent_id) <> 'shut_out'
"""

# An agent that names no type of work gets none in advance: it takes tickets.
OFFERED = """
    SELECT agent_id, work_types FROM agent
     WHERE agent_id = ANY($1::uuid[]) AND agent_type = $2 AND agent_may_work(agent_id) IN ('free', 'trial')
"""


async def store(
    db: Connection,
    tasks: Sequence[NewTask],
    claims: Mapping[UUID, StandingClaim],
    published: Collection[UUID],
    told: Sequence[NewEvent],
    *,
    lease: timedelta,
    ageing: timedelta,
    ttl: timedelta,
) -> tuple[dict[UUID, bool], Written | None]:
    """Store tasks that have no keys, aims or approvals, each under ids of its own in this call.

    `claims` are by the task that goes to each; `told` holds what is told of each task that is stored, and the
    `task.claimed` of each claim. Return which tasks were new, and whether each was leased to its claim; and
    what was told.
    """
    leased = [claims.get(task.task_id) for task in tasks]
    rows = await db.fetch(
        STORE_FEW if len(tasks) <= FEW else STORE,
        *columns(tasks),
        [None if claim is None else claim.agent_id for claim in leased],
        [None if claim is None else claim.claim_id for claim in leased],
        [task.task_id in published for task in tasks],
        lease,
        ageing,
        ttl,
        *events.columns(told),
    )
    return {row["task_id"]: row["is_leased"] for row in rows if row["task_id"] is not None}, events.written(rows)


async def taken(db: Connection, claims: Sequence[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], UUID]:
    """Return the tasks that were leased to these claims, (agent_id, claim_id), and whose attempts have not ended."""
    rows = await db.fetch(TAKEN, [agent_id for agent_id, _ in claims], [claim_id for _, claim_id in claims])
    return {(row["agent_id"], row["claim_id"]): row["task_id"] for row in rows}


async def offered(db: Connection, agent_ids: Collection[UUID], agent_type: str) -> dict[UUID, frozenset[str]]:
    """Return the types of work that agents name, of those that are of this pool and may have work."""
    rows = await db.fetch(OFFERED, list(agent_ids), agent_type)
    return {row["agent_id"]: frozenset(row["work_types"]) for row in rows}
