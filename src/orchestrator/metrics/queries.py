"""All SQL about metrics: who sends them, and what events do not say."""

from collections.abc import Collection
from uuid import UUID

from orchestrator.database.pool import Connection
from orchestrator.events.model import Event, Kind
from orchestrator.metrics.names import StepFacts

# One orchestrator sends for all. The lock is that of a session, so that the next takes over when this one has gone.
CLAIM = "SELECT pg_try_advisory_lock(hashtextextended('chiffon.metrics', 0))"

OF_RUNS = """
    SELECT run_id, about->>'service' AS service
      FROM run
     WHERE run_id = ANY($1::uuid[])
"""

OF_TASKS = """
    SELECT run_step.task_id, about->>'service' AS service
      FROM run_step
      JOIN run USING (run_id)
     WHERE run_step.task_id = ANY($1::uuid[])
"""

OF_STEP = f"""
    SELECT started_at, finished_at,
           EXISTS (SELECT FROM event
                    WHERE event.kind = '{Kind.TASK_STEP}' AND event.task_id = $1 AND event.attempt = $2
                      AND event.data->>'name' = $3 AND event.seq < $4) AS began_before
      FROM task_step
     WHERE task_id = $1 AND attempt = $2 AND name = $3
"""  # noqa: S608 - constants only


async def claim(db: Connection) -> bool:
    """Become the one who sends, until the session ends; False while another one is."""
    return bool(await db.fetchval(CLAIM))


async def services_of_runs(db: Connection, run_ids: Collection[UUID]) -> dict[UUID, str | None]:
    """Return which services runs repair, None for one that repairs none, by the ids of the runs."""
    rows = await db.fetch(OF_RUNS, list(run_ids)) if run_ids else []
    return {row["run_id"]: row["service"] for row in rows}


async def services_of_tasks(db: Connection, task_ids: Collection[UUID]) -> dict[UUID, str | None]:
    """Return which services runs repair, by the ids of their tasks; a task of no run is left out."""
    rows = await db.fetch(OF_TASKS, list(task_ids)) if task_ids else []
    return {row["task_id"]: row["service"] for row in rows}


async def of_step(db: Connection, event: Event) -> StepFacts | None:
    """Return what is known of the inner step that an event is about."""
    row = await db.fetchrow(OF_STEP, event.task_id, event.attempt, event.data["name"], event.seq)
    return None if row is None else StepFacts(row["started_at"], row["finished_at"], row["began_before"])
