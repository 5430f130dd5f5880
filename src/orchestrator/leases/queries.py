"""All SQL about leases. The tasks are locked before (`tasks.queries.lock`); the guards stand here all the same."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from common.lifecycle import Status
from common.messages import Lease, WorkResult
from orchestrator.database.pool import Connection
from orchestrator.leases.rules import Attempt
from orchestrator.tasks.columns import COLUMNS
from orchestrator.tasks.model import Task

CLAIM = """
    WITH claimed AS (
        UPDATE task
           SET status = 'running', agent_id = new.agent_id, claim_id = new.claim_id,
               lease_expires_at = now() + new.lease, attempt = attempt + 1, fence = fence + 1,
               started_at = now(), updated_at = now(), progress = '', output = '',
               error_message = NULL, error_code = NULL, exit_code = NULL, duration_ms = NULL, result = NULL
          FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::interval[]) AS new (task_id, agent_id, claim_id, lease)
          JOIN agent ON agent.agent_id = new.agent_id
         WHERE task.task_id = new.task_id AND task.status = 'pending' AND task.admitted
           AND agent.agent_type = task.agent_type
     RETURNING task.task_id, task.attempt, task.fence, task.agent_id, task.claim_id
    ), tried AS (
        INSERT INTO attempt (task_id, number, fence, agent_id, claim_id)
        SELECT task_id, attempt, fence, agent_id, claim_id FROM claimed
    ), used_up AS (
        DELETE FROM outbox USING claimed WHERE outbox.kind = 'ticket' AND outbox.task_id = claimed.task_id
    )
    SELECT task_id, attempt, fence FROM claimed
"""

ATTEMPTS = """
    SELECT a.task_id, a.number, a.fence, a.agent_id, a.outcome, a.output_bytes,
           agent_may_work(a.agent_id) = 'shut_out' AS by_shut_out, coalesce(g.failures_in_row > 0, false) AS by_failing,
           EXISTS (SELECT FROM attempt earlier
                    WHERE earlier.task_id = a.task_id AND earlier.agent_id = a.agent_id AND earlier.number < a.number
                      AND NOT earlier.started AND earlier.error_code <> 5002) AS refused_before
      FROM attempt a
      JOIN unnest($1::uuid[], $2::smallint[]) AS wanted (task_id, number) USING (task_id, number)
      LEFT JOIN agent g ON g.agent_id = a.agent_id
"""

# A grant that came too late (5002), or was handed back without a code, is no fault of the agent.
REFUSED_LATELY = """
    SELECT agent_id, task_id, now() - max(ended_at) AS ago
      FROM attempt
     WHERE agent_id = ANY($1::uuid[]) AND NOT started AND ended_at > now() - $2::interval
       AND error_code <> 5002
     GROUP BY agent_id, task_id
"""

REFUSALS = """
    SELECT task_id, agent_id, now() - max(ended_at) AS ago
      FROM attempt
     WHERE task_id = ANY($1::uuid[]) AND NOT started AND ended_at IS NOT NULL AND error_code <> 5002
     GROUP BY task_id, agent_id
"""

# Here and below `coalesce` keeps the planner off the index of what runs: it takes that for short when it last looked
# before much ran, and would read all of it in place of the few that are named.
END = """
    WITH new AS MATERIALIZED (
        SELECT *
          FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::int[],
                      $9::bigint[], $10::text[], $11::jsonb[], $12::jsonb[], $13::boolean[], $14::jsonb[])
                 AS new (task_id, fence, status, outcome, output, error_message, error_code, exit_code, duration_ms,
                         artifacts_path, output_bytes, output_dropped, started, result)
    ), finished AS (
        UPDATE task
           SET status = new.status, claim_id = NULL, lease_expires_at = NULL, output = new.output,
               error_message = new.error_message, error_code = new.error_code, exit_code = new.exit_code,
               duration_ms = new.duration_ms, artifacts_path = new.artifacts_path, result = new.result,
               finished_at = now(), updated_at = now()
          FROM new
         WHERE new.status IS NOT NULL
           AND task.task_id = new.task_id AND task.fence = new.fence AND coalesce(task.status = 'running', false)
    )
    UPDATE attempt
       SET ended_at = coalesce(ended_at, now()), outcome = coalesce(attempt.outcome, new.outcome),
           exit_code = new.exit_code, error_code = new.error_code, error_message = new.error_message,
           duration_ms = new.duration_ms, output_bytes = new.output_bytes,
           output_dropped = new.output_dropped, started = new.started
      FROM new
     WHERE attempt.task_id = new.task_id AND attempt.fence = new.fence
"""

REQUEUE = """
    UPDATE task
       SET status = 'pending', claim_id = NULL, lease_expires_at = NULL, updated_at = now(),
           error_message = new.error_message, error_code = new.error_code,
           unstarted = unstarted + CASE WHEN new.counts THEN 0 ELSE 1 END
      FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::int[], $5::boolean[])
             AS new (task_id, fence, error_message, error_code, counts)
     WHERE task.task_id = new.task_id AND task.fence = new.fence AND coalesce(task.status = 'running', false)
"""

RENEW = """
    WITH held AS (
        SELECT task.task_id
          FROM task
          JOIN unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS lease (task_id, fence, agent_id)
            ON task.task_id = lease.task_id AND task.fence = lease.fence AND task.agent_id = lease.agent_id
         WHERE coalesce(task.status = 'running', false) AND agent_may_work(lease.agent_id) <> 'shut_out'
         ORDER BY task.task_id
           FOR UPDATE OF task
    )
    UPDATE task SET lease_expires_at = now() + $4::interval
      FROM held
     WHERE task.task_id = held.task_id
 RETURNING task.task_id, task.fence
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


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended, for its row and, where `status` is given, for its task.

    `counts`: whether the attempt was a start of the work.
    """

    task_id: UUID
    fence: int
    outcome: str
    status: Status | None = None
    output: str = ""
    exit_code: int | None = None
    error_code: int | None = None
    error_message: str | None = None
    duration_ms: int | None = None
    output_bytes: dict[str, int] | None = None
    output_dropped: dict[str, int] | None = None
    artifacts_path: str | None = None
    result: Any = None
    counts: bool = True

    @classmethod
    def of(cls, result: WorkResult, status: Status | None) -> "End":
        """Return what a result says."""
        return cls(
            result.task_id,
            result.fence,
            outcome=result.status,
            status=status,
            output=result.output,
            exit_code=result.exit_code,
            error_code=result.error_code,
            error_message=result.error_message,
            duration_ms=result.duration_ms,
            output_bytes={stream.value: size for stream, size in result.output_bytes.items()},
            output_dropped={stream.value: size for stream, size in result.output_dropped.items()} or None,
            artifacts_path=result.artifacts_path,
            result=result.result,
        )


async def claim(db: Connection, claims: Sequence[tuple[UUID, UUID, UUID, timedelta]]) -> dict[UUID, tuple[int, int]]:
    """Lease tasks: (task_id, agent_id, claim_id, for how long); return attempt and fence of each that was leased.

    A task that no longer waits, or is not for the pool of its agent, is left out. Tickets of the others are used up.
    """
    rows = await db.fetch(CLAIM, *(list(column) for column in zip(*claims, strict=True)))
    return {row["task_id"]: (row["attempt"], row["fence"]) for row in rows}


async def refused_lately(
    db: Connection, agent_ids: Collection[UUID], *, within: timedelta
) -> dict[UUID, dict[UUID, timedelta]]:
    """Return the tasks that each agent refused within that time before anything of them ran, and how long ago."""
    refused: dict[UUID, dict[UUID, timedelta]] = {}
    for row in await db.fetch(REFUSED_LATELY, list(agent_ids), within):
        refused.setdefault(row["agent_id"], {})[row["task_id"]] = row["ago"]
    return refused


async def refusals(db: Connection, task_ids: Collection[UUID]) -> dict[UUID, dict[UUID, timedelta]]:
    """Return for each task which agents refused it before anything of it ran, and how long ago they last did."""
    refused: dict[UUID, dict[UUID, timedelta]] = {}
    for row in await db.fetch(REFUSALS, list(task_ids)):
        refused.setdefault(row["task_id"], {})[row["agent_id"]] = row["ago"]
    return refused


async def attempts(db: Connection, numbers: Sequence[tuple[UUID, int]]) -> dict[tuple[UUID, int], Attempt]:
    """Return attempts by (task_id, number)."""
    rows = await db.fetch(ATTEMPTS, [task_id for task_id, _ in numbers], [number for _, number in numbers])
    return {(row["task_id"], row["number"]): Attempt(**row) for row in rows}


async def end(db: Connection, ends: Sequence[End]) -> None:
    """End attempts, and the tasks of those that carry a status."""
    if not ends:
        return
    await db.execute(
        END,
        [item.task_id for item in ends],
        [item.fence for item in ends],
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
        [item.counts for item in ends],
        [item.result for item in ends],
    )


async def requeue(db: Connection, ends: Sequence[End]) -> None:
    """Let the tasks of failed or lost attempts wait again."""
    if ends:
        await db.execute(
            REQUEUE,
            [item.task_id for item in ends],
            [item.fence for item in ends],
            [item.error_message for item in ends],
            [item.error_code for item in ends],
            [item.counts for item in ends],
        )


async def renew(db: Connection, leases: Sequence[tuple[UUID, Lease]], *, lease: timedelta) -> set[tuple[UUID, int]]:
    """Prolong the leases of (agent_id, lease) that are still live, except those of agents whose identity was disabled;
    return their (task_id, fence).
    """
    rows = await db.fetch(
        RENEW,
        [held.task_id for _, held in leases],
        [held.fence for _, held in leases],
        [agent_id for agent_id, _ in leases],
        lease,
    )
    return {(row["task_id"], row["fence"]) for row in rows}


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
