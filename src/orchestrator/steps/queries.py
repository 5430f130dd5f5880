"""All SQL about inner steps."""

from collections.abc import Sequence
from uuid import UUID

from common.messages import MOST_STEPS, StepStatus
from orchestrator.database.pool import Connection
from orchestrator.steps.model import NewStep, StoredStep, TaskStep
from orchestrator.tasks.attempts import attempt_of

# A report of another agent joins no attempt. What is final stays as it is; what says nothing new changes nothing, so
# that a report that comes twice is one. No attempt has more than so many steps, whatever an agent sends.
STORE = f"""
    WITH own AS MATERIALIZED (
        SELECT new.*
          FROM unnest($1::uuid[], $2::smallint[], $3::uuid[], $4::smallint[], $5::text[], $6::text[],
                      $7::timestamptz[], $8::timestamptz[], $9::text[])
                 AS new (task_id, attempt, agent_id, position, name, status, started_at, finished_at, message)
         CROSS JOIN {attempt_of("new.task_id", "new.attempt")} AS of_agent
         WHERE of_agent.agent_id = new.agent_id
    ), counted AS (
        SELECT own.*, known.name IS NOT NULL AS is_known,
               (SELECT count(*) FROM task_step AS other
                 WHERE other.task_id = own.task_id AND other.attempt = own.attempt)
               + count(*) FILTER (WHERE known.name IS NULL)
                     OVER (PARTITION BY own.task_id, own.attempt ORDER BY own.position, own.name) AS steps
          FROM own
          LEFT JOIN task_step AS known USING (task_id, attempt, name)
    ), stored AS (
        INSERT INTO task_step AS step
               (task_id, attempt, position, name, status, started_at, finished_at, message)
        SELECT task_id, attempt, position, name, status, started_at, finished_at, message
          FROM counted
         WHERE is_known OR steps <= {MOST_STEPS}
         ORDER BY task_id, attempt, name
            ON CONFLICT (task_id, attempt, name) DO UPDATE
           SET position = excluded.position, status = excluded.status, message = excluded.message,
               started_at = coalesce(step.started_at, excluded.started_at),
               finished_at = excluded.finished_at
         WHERE step.status = 'in_progress'
           AND (step.position, step.status, step.message)
               IS DISTINCT FROM (excluded.position, excluded.status, excluded.message)
     RETURNING task_id, attempt, position, name, status, message
    )
    SELECT stored.*, own.agent_id, task.trace_id, task.request_id
      FROM stored
      JOIN own USING (task_id, attempt, name)
      JOIN task USING (task_id)
"""  # noqa: S608 - constants only

OF_TASKS = """
    SELECT task_id, attempt, position, name, status, started_at, finished_at, message
      FROM task_step AS step
     WHERE task_id = ANY($1::uuid[])
       AND attempt = (SELECT max(attempt) FROM task_step AS latest WHERE latest.task_id = step.task_id)
     ORDER BY task_id, position, name
"""


async def store(db: Connection, steps: Sequence[NewStep]) -> list[StoredStep]:
    """Store reports, of each step one, and return those that said something new."""
    if not steps:
        return []
    rows = await db.fetch(
        STORE,
        [new.task_id for new in steps],
        [new.attempt for new in steps],
        [new.agent_id for new in steps],
        [new.report.position for new in steps],
        [new.report.name for new in steps],
        [new.report.status for new in steps],
        [new.report.started_at for new in steps],
        [new.report.finished_at for new in steps],
        [new.report.message for new in steps],
    )
    return [StoredStep(**{**row, "status": StepStatus(row["status"])}) for row in rows]


async def of_tasks(db: Connection, task_ids: Sequence[UUID]) -> dict[UUID, list[TaskStep]]:
    """Return the inner steps of tasks in their order, each task's of the newest attempt that has any."""
    steps: dict[UUID, list[TaskStep]] = {}
    for row in await db.fetch(OF_TASKS, list(task_ids)):
        steps.setdefault(row["task_id"], []).append(TaskStep.from_row(row))
    return steps
