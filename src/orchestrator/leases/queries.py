"""SQL about leases: which tasks wait, who may have them, and what becomes of leases."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from common.messages import Lease
from orchestrator.database.pool import Connection
from orchestrator.events import queries as events
from orchestrator.events.model import NewEvent
from orchestrator.leases.credit_queries import returned
from orchestrator.leases.model import Asker, End
from orchestrator.leases.rules import Attempt
from orchestrator.registry.model import Room
from orchestrator.registry.queries import ROOM, ROOM_COLUMNS, rooms_of
from orchestrator.tasks.attempts import attempt_of
from orchestrator.tasks.columns import COLUMNS
from orchestrator.tasks.model import Task

# The one statement that leases tasks which wait. Rows may have changed since they were read, so it asks again, and
# holds what it changes: tasks in the order of their ids, then agents, the head of the events last. An agent gets as
# many as it has credit for, or none; one on trial gets one, and then waits for how that ends. An agent that claims over
# HTTP has no credit: it asks for each task.
#
# A lease counts from after the locks, not from the start of the transaction: its agent counts it from the newest
# message that its row tells of, which may have been taken in while this waited.
#
# Here and below `coalesce` keeps the planner off the indexes of what waits and what runs: it takes those for short when
# it last looked before much did, and would read all of it in place of the few that are named.
LEASE = (
    f"""
    WITH held AS MATERIALIZED (
        SELECT new.*
          FROM unnest($1::uuid[], $2::smallint[], $3::uuid[], $4::uuid[], $5::interval[])
                 AS new (task_id, attempt, agent_id, claim_id, lease)
          JOIN task ON task.task_id = new.task_id AND task.attempt = new.attempt
         WHERE coalesce(task.status = 'pending', false) AND coalesce(task.admitted, false)
           AND coalesce(task.not_before <= now(), true) AND coalesce(task.expires_at > now(), true)
         ORDER BY task.task_id
           FOR UPDATE OF task
    ), asked AS (
        SELECT agent_id, (array_agg(claim_id))[1] AS claim_id, count(*) AS tasks FROM held GROUP BY agent_id
    ), agents AS MATERIALIZED (
        SELECT agent.agent_id, asked.tasks, agent.agent_type
          FROM asked
          JOIN agent USING (agent_id)
         WHERE (agent.worker_id IS NOT NULL
                OR agent.boot_id = asked.claim_id AND asked.tasks <= {ROOM} AND agent.status IN ('online', 'busy'))
           AND (agent_may_work(agent.agent_id) = 'free'
                OR agent_may_work(agent.agent_id) = 'trial' AND asked.tasks = 1 AND agent.tripped_until <= now())
         ORDER BY agent.agent_id
           FOR UPDATE OF agent
    ), credited AS (
        UPDATE agent
           SET granted = agent.granted + CASE WHEN agent.worker_id IS NULL THEN agents.tasks ELSE 0 END,
               tripped_until = CASE WHEN agent.tripped_until IS NOT NULL THEN now() + $6::interval END
          FROM agents
         WHERE agent.agent_id = agents.agent_id
     RETURNING agent.agent_type, {ROOM_COLUMNS}
    ), claimed AS (
        UPDATE task
           SET status = 'running', agent_id = held.agent_id, claim_id = held.claim_id,
               lease_expires_at = clock_timestamp() + held.lease, attempt = task.attempt + 1,
               started_at = now(), updated_at = now(), progress = '', output = '', not_before = NULL,
               error_message = NULL, error_code = NULL, exit_code = NULL, duration_ms = NULL, result = NULL,
               output_bytes = NULL, output_dropped = NULL, outcome = NULL
          FROM held
          JOIN credited USING (agent_id)
         WHERE task.task_id = held.task_id AND task.agent_type = credited.agent_type
     RETURNING task.task_id, task.attempt
    ), """  # noqa: S608 - constants only
    + events.told(7, of="JOIN claimed USING (task_id)")
    + returned("task_id, attempt", of="claimed")
)


ATTEMPTS = f"""
    SELECT a.task_id, a.number, a.agent_id, a.outcome, a.output_bytes,
           agent_may_work(a.agent_id) = 'shut_out' AS by_shut_out, coalesce(g.failures_in_row > 0, false) AS by_failing,
           EXISTS (SELECT FROM earlier_attempt earlier
                    WHERE earlier.task_id = a.task_id AND earlier.agent_id = a.agent_id AND earlier.number < a.number
                      AND NOT earlier.started AND earlier.error_code <> 5002) AS refused_before
      FROM unnest($1::uuid[], $2::smallint[]) AS wanted (task_id, number)
     CROSS JOIN {attempt_of("wanted.task_id", "wanted.number")} AS a
      LEFT JOIN agent g ON g.agent_id = a.agent_id
"""  # noqa: S608 - constants only


END = """
    UPDATE task
       SET status = new.status, claim_id = NULL, lease_expires_at = NULL, output = new.output,
           error_message = new.error_message, error_code = new.error_code, exit_code = new.exit_code,
           duration_ms = new.duration_ms, artifacts_path = new.artifacts_path, result = new.result,
           output_bytes = new.output_bytes, output_dropped = new.output_dropped, outcome = new.outcome,
           finished_at = now(), updated_at = now()
      FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[],
                  $8::int[], $9::bigint[], $10::text[], $11::jsonb[], $12::jsonb[], $13::jsonb[])
             AS new (task_id, attempt, status, outcome, output, error_message, error_code, exit_code, duration_ms,
                     artifacts_path, output_bytes, output_dropped, result)
     WHERE task.task_id = new.task_id AND task.attempt = new.attempt AND coalesce(task.status = 'running', false)
"""

# A cancel ends a task before its agent has stopped the work; how much the work had written is known after that.
REPORT_STOPPED = """
    UPDATE task SET output_bytes = new.output_bytes, output_dropped = new.output_dropped
      FROM unnest($1::uuid[], $2::smallint[], $3::jsonb[], $4::jsonb[])
             AS new (task_id, attempt, output_bytes, output_dropped)
     WHERE task.task_id = new.task_id AND task.attempt = new.attempt AND task.status = 'cancelled'
"""

# The attempt that ended gets a row of its own, for the task's row is about to tell of the next one.
REQUEUE = """
    WITH new AS MATERIALIZED (
        SELECT *
          FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::int[], $6::int[], $7::bigint[],
                      $8::jsonb[], $9::jsonb[], $10::boolean[], $11::timestamptz[])
                 AS new (task_id, attempt, outcome, error_message, error_code, exit_code, duration_ms,
                         output_bytes, output_dropped, counts, not_before)
    ), moved AS (
        INSERT INTO earlier_attempt (task_id, number, agent_id, claim_id, started_at, ended_at, outcome, exit_code,
                                     error_code, error_message, duration_ms, output_bytes, output_dropped, started)
        SELECT task.task_id, task.attempt, task.agent_id, task.claim_id, task.started_at, now(), new.outcome,
               new.exit_code, new.error_code, new.error_message, new.duration_ms, new.output_bytes,
               new.output_dropped, new.counts
          FROM task JOIN new ON new.task_id = task.task_id AND new.attempt = task.attempt
         WHERE coalesce(task.status = 'running', false)
    )
    UPDATE task
       SET status = 'pending', claim_id = NULL, lease_expires_at = NULL, updated_at = now(),
           not_before = CASE WHEN new.not_before > now() THEN new.not_before END,
           error_message = new.error_message, error_code = new.error_code,
           unstarted = unstarted + CASE WHEN new.counts THEN 0 ELSE 1 END
      FROM new
     WHERE task.task_id = new.task_id AND task.attempt = new.attempt AND coalesce(task.status = 'running', false)
"""

RENEW = """
    WITH held AS (
        SELECT task.task_id
          FROM task
          JOIN unnest($1::uuid[], $2::smallint[], $3::uuid[]) AS lease (task_id, attempt, agent_id)
            ON task.task_id = lease.task_id AND task.attempt = lease.attempt AND task.agent_id = lease.agent_id
         WHERE coalesce(task.status = 'running', false) AND agent_may_work(lease.agent_id) <> 'shut_out'
         ORDER BY task.task_id
           FOR UPDATE OF task
    )
    UPDATE task SET lease_expires_at = now() + $4::interval
      FROM held
     WHERE task.task_id = held.task_id
 RETURNING task.task_id, task.attempt
"""

EXPIRED = """
    SELECT task_id FROM task
     WHERE status = 'running' AND lease_expires_at < now()
     ORDER BY lease_expires_at LIMIT $1
"""

LOCK_EXPIRED = f"""
    SELECT {COLUMNS}
      FROM task
     WHERE task_id = ANY($1::uuid[]) AND status = 'running' AND lease_expires_at < now()
     ORDER BY task_id
       FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - constants only

COUNT_RUNNING = """
    SELECT count(*) FILTER (WHERE lease_expires_at >= now()) AS live,
           count(*) FILTER (WHERE lease_expires_at < now()) AS expired
      FROM task WHERE status = 'running'
"""


async def lease(
    db: Connection, pairs: Sequence[tuple[Task, Asker]], told: Sequence[NewEvent], *, trial: timedelta
) -> tuple[set[UUID], list[Room]]:
    """Lease tasks that still wait to agents that still may have them, and write of each what is told of it.

    `trial` is how long an agent on trial gets nothing more. Return the tasks that were leased, and the room of the
    agents that got some.
    """
    rows = await db.fetch(
        LEASE,
        [task.task_id for task, _ in pairs],
        [task.attempt for task, _ in pairs],
        [asker.agent_id for _, asker in pairs],
        [asker.claim_id for _, asker in pairs],
        [asker.lease for _, asker in pairs],
        trial,
        *events.columns(told),
    )
    return {row["task_id"] for row in rows if row["task_id"] is not None}, rooms_of(rows)


async def attempts(db: Connection, numbers: Sequence[tuple[UUID, int]]) -> dict[tuple[UUID, int], Attempt]:
    """Return attempts by (task_id, number)."""
    rows = await db.fetch(ATTEMPTS, [task_id for task_id, _ in numbers], [number for _, number in numbers])
    return {(row["task_id"], row["number"]): Attempt(**row) for row in rows}


async def end(db: Connection, ends: Sequence[End]) -> None:
    """End running tasks with their last attempts."""
    if not ends:
        return
    await db.execute(
        END,
        [item.task_id for item in ends],
        [item.attempt for item in ends],
        [item.status for item in ends],
        [item.outcome for item in ends],
        [item.output for item in ends],
        [item.error_message for item in ends],
        [item.error_code for item in ends],
        [item.exit_code for item in ends],
        [item.duration_ms for item in ends],
        [item.artifacts_path for item in ends],
        [item.output_bytes for item in ends],
        [item.output_dropped for item in ends],
        [item.result for item in ends],
    )


async def report_stopped(db: Connection, ends: Sequence[End]) -> None:
    """Note how much the attempts had written that were cancelled while they ran."""
    if ends:
        await db.execute(
            REPORT_STOPPED,
            [item.task_id for item in ends],
            [item.attempt for item in ends],
            [item.output_bytes for item in ends],
            [item.output_dropped for item in ends],
        )


async def requeue(db: Connection, ends: Sequence[tuple[End, datetime]]) -> None:
    """Let the tasks of failed or lost attempts wait again, each until then at least."""
    if ends:
        await db.execute(
            REQUEUE,
            [item.task_id for item, _ in ends],
            [item.attempt for item, _ in ends],
            [item.outcome for item, _ in ends],
            [item.error_message for item, _ in ends],
            [item.error_code for item, _ in ends],
            [item.exit_code for item, _ in ends],
            [item.duration_ms for item, _ in ends],
            [item.output_bytes for item, _ in ends],
            [item.output_dropped for item, _ in ends],
            [item.counts for item, _ in ends],
            [at for _, at in ends],
        )


async def renew(db: Connection, leases: Sequence[tuple[UUID, Lease]], *, lease: timedelta) -> set[tuple[UUID, int]]:
    """Prolong the leases of (agent_id, lease) that are still live, except those of agents whose identity was disabled;
    return their (task_id, attempt).
    """
    rows = await db.fetch(
        RENEW,
        [held.task_id for _, held in leases],
        [held.attempt for _, held in leases],
        [agent_id for agent_id, _ in leases],
        lease,
    )
    return {(row["task_id"], row["attempt"]) for row in rows}


async def expired(db: Connection, *, limit: int) -> list[UUID]:
    """Return running tasks whose lease ran out, the longest first."""
    return [row["task_id"] for row in await db.fetch(EXPIRED, limit)]


async def lock_expired(db: Connection, task_ids: Sequence[UUID]) -> list[Task]:
    """Return those of the tasks whose lease ran out, locked; what somebody else works on is left out."""
    return [Task.from_row(row) for row in await db.fetch(LOCK_EXPIRED, list(task_ids))]


async def count_running(db: Connection) -> tuple[int, int]:
    """Return how many running tasks have a lease that is live, and one that ran out."""
    row = await db.fetchrow(COUNT_RUNNING)
    assert row is not None
    return row["live"], row["expired"]
