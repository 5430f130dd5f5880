"""The statement that ends tasks whose results have no other consequence, and takes in the credit that came with them.

Rows may have changed since they were read, so the statement asks again, and holds what it changes. The order of locks
is that of `keys.admission`: tasks in the order of their ids, then agents, the head of the events last.
"""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import asyncpg

from common.messages import Credit
from orchestrator.database.pool import Connection
from orchestrator.events import queries as events
from orchestrator.events.model import NewEvent
from orchestrator.leases.credit_queries import credit_rows, credited, returned
from orchestrator.leases.model import End
from orchestrator.leases.rules import Attempt
from orchestrator.output.model import NewChunk
from orchestrator.registry.model import Room
from orchestrator.registry.queries import rooms_of
from orchestrator.tasks.attempts import attempt_of
from orchestrator.tasks.columns import COLUMNS
from orchestrator.tasks.model import Task

REPORTED = f"""
    SELECT {COLUMNS}, now() AS read_at,
           tried.number AS by_number, tried.agent_id AS by_agent_id,
           tried.outcome AS by_outcome, tried.output_bytes AS by_output_bytes,
           agent_may_work(tried.agent_id) = 'shut_out' AS by_shut_out,
           coalesce(agent.failures_in_row > 0, false) AS by_failing
      FROM unnest($1::uuid[], $2::smallint[]) AS wanted (task_id, number)
      JOIN task ON task.task_id = wanted.task_id
     CROSS JOIN {attempt_of("wanted.task_id", "wanted.number")} AS tried
      LEFT JOIN agent ON agent.agent_id = tried.agent_id
"""  # noqa: S608 - constants only

# The events are told of those that ended and of the pieces that were not there yet, each by its position.
FINISH = (
    """
    WITH held AS MATERIALIZED (
        SELECT new.*
          FROM unnest($1::uuid[], $2::smallint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::int[],
                      $8::int[], $9::bigint[], $10::text[], $11::jsonb[], $12::jsonb[], $30::jsonb[], $13::bigint[])
                 AS new (task_id, attempt, agent_id, status, output, error_message, error_code, exit_code,
                         duration_ms, artifacts_path, output_bytes, output_dropped, result, position)
          JOIN task ON task.task_id = new.task_id AND task.attempt = new.attempt AND task.agent_id = new.agent_id
          LEFT JOIN agent ON agent.agent_id = new.agent_id
         WHERE coalesce(task.status = 'running', false) AND coalesce(agent.failures_in_row = 0, true)
           AND agent_may_work(new.agent_id) <> 'shut_out'
         ORDER BY task.task_id
           FOR UPDATE OF task
    ), piece AS MATERIALIZED (
        SELECT *
          FROM unnest($14::uuid[], $15::smallint[], $16::text[], $17::bigint[], $18::int[], $19::text[], $20::bigint[])
                 AS piece (task_id, attempt, stream, byte_offset, number, text, position)
    ), finished AS (
        UPDATE task
           SET status = held.status, claim_id = NULL, lease_expires_at = NULL, output = held.output,
               error_message = held.error_message, error_code = held.error_code, exit_code = held.exit_code,
               duration_ms = held.duration_ms, artifacts_path = held.artifacts_path, result = held.result,
               output_bytes = held.output_bytes, output_dropped = held.output_dropped, outcome = held.status,
               finished_at = now(), updated_at = now()
          FROM held
         WHERE task.task_id = held.task_id
     RETURNING held.task_id, held.attempt, held.position
    ), stored AS (
        INSERT INTO output_chunk (task_id, attempt, stream, byte_offset, number, size, text)
        SELECT task_id, attempt, stream, byte_offset, piece.number, octet_length(text), text
          FROM piece JOIN finished USING (task_id, attempt)
            ON CONFLICT DO NOTHING
     RETURNING task_id, attempt, stream, byte_offset
    ), """  # noqa: S608 - constants only
    + credited("$31", after="finished")
    + """
    , done AS (
        SELECT position FROM finished
         UNION ALL
        SELECT position FROM stored JOIN piece USING (task_id, attempt, stream, byte_offset)
    ), """
    + events.told(21, of="JOIN done USING (position) WHERE (SELECT count(*) FROM credited) >= 0")
    + returned("task_id, attempt", of="finished")
)


async def reported(
    db: Connection, numbers: Collection[tuple[UUID, int]]
) -> dict[tuple[UUID, int], tuple[Task, Attempt]]:
    """Return tasks and attempts by (task_id, number); nothing is locked."""
    rows = await db.fetch(REPORTED, [task_id for task_id, _ in numbers], [number for _, number in numbers])
    return {(row["task_id"], row["by_number"]): (_task(row), _attempt(row)) for row in rows}


async def finish(
    db: Connection,
    ends: Sequence[tuple[End, UUID, int]],
    pieces: Sequence[tuple[NewChunk, int]],
    told: Sequence[NewEvent],
    credits: Mapping[UUID, Credit],
) -> tuple[set[tuple[UUID, int]], list[Room]]:
    """End tasks that still run, of agents that are well, and store what came with the results.

    Return the attempts that ended their tasks, (task_id, attempt), and the room of the agents that asked for work.

    Each end comes with the agent that the task must still belong to, and each end and each piece with the position of
    its event, from 1.
    """
    rows = await db.fetch(
        FINISH,
        [end.task_id for end, _, _ in ends],
        [end.attempt for end, _, _ in ends],
        [agent_id for _, agent_id, _ in ends],
        [end.status for end, _, _ in ends],
        [end.output for end, _, _ in ends],
        [end.error_message for end, _, _ in ends],
        [end.error_code for end, _, _ in ends],
        [end.exit_code for end, _, _ in ends],
        [end.duration_ms for end, _, _ in ends],
        [end.artifacts_path for end, _, _ in ends],
        [end.output_bytes for end, _, _ in ends],
        [end.output_dropped for end, _, _ in ends],
        [position for _, _, position in ends],
        [piece.task_id for piece, _ in pieces],
        [piece.attempt for piece, _ in pieces],
        [piece.chunk.stream for piece, _ in pieces],
        [piece.chunk.offset for piece, _ in pieces],
        [piece.chunk.number for piece, _ in pieces],
        [piece.text for piece, _ in pieces],
        [position for _, position in pieces],
        *events.columns(told),
        [end.result for end, _, _ in ends],
        credit_rows(credits),
    )
    ended = {(row["task_id"], row["attempt"]) for row in rows if row["task_id"] is not None}
    return ended, rooms_of(rows)


def _task(row: asyncpg.Record) -> Task:
    return Task.from_row({name: value for name, value in row.items() if not name.startswith("by_")})


def _attempt(row: asyncpg.Record) -> Attempt:
    return Attempt(
        row["task_id"],
        row["by_number"],
        row["by_agent_id"],
        row["by_outcome"],
        row["by_output_bytes"],
        by_shut_out=row["by_shut_out"],
        by_failing=row["by_failing"],
    )
