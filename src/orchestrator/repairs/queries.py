"""All SQL about repairs as the contract sees them."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from common.messages import LAST_STEP, StepStatus
from common.rest.repairs import RepairStatus
from orchestrator.database.pages import MOST_PAGE_BYTES
from orchestrator.database.pool import Connection
from orchestrator.repairs.model import Asked, RepairFilter, RepairRow
from orchestrator.runs.queries import PLAN_EACH

# The contract has no word for a run that was cancelled: its host has taken back what it did, or had nothing to.
STATUS = f"""
    CASE WHEN status <> 'cancelled' THEN status
         WHEN EXISTS (SELECT FROM run_step
                        JOIN task_step USING (task_id)
                       WHERE run_step.run_id = run.run_id AND NOT run_step.superseded
                         AND task_step.name = '{LAST_STEP}' AND task_step.status = '{StepStatus.SUCCEEDED}')
         THEN '{RepairStatus.ROLLED_BACK}'
         ELSE '{RepairStatus.FAILED}' END
"""

COLUMNS = f"""
    run_id, {STATUS} AS status, about->>'service' AS service, about->>'instruction' AS instruction,
    about->>'priority' AS priority, about->>'gate' AS gate, created_at, started_at, finished_at
"""

FIND = f"""
    SELECT {COLUMNS}, about->'plan_steps' AS plan_steps
      FROM run
     WHERE run_id = $1 AND about->>'service' IS NOT NULL
"""  # noqa: S608 - constants only

# The status is compared twice, so that an index finds most of those that have it.
LIST = f"""
    WITH page AS (
        SELECT {COLUMNS}
          FROM run
         WHERE about->>'service' IS NOT NULL
           AND ($1::text IS NULL OR status = $1 OR ($1 IN ('rolled_back', 'failed') AND status = 'cancelled'))
           AND ($1::text IS NULL OR $1 = {STATUS})
           AND ($2::text IS NULL OR about->>'service' = $2)
         ORDER BY created_at DESC, run_id DESC
         LIMIT $3 OFFSET $4
    ), measured AS (
        SELECT *, sum(octet_length(instruction))
                      OVER (ORDER BY created_at DESC, run_id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                      AS bytes_before
          FROM page
    )
    SELECT *, NULL::jsonb AS plan_steps
      FROM measured
     WHERE coalesce(bytes_before, 0) < $5
     ORDER BY created_at DESC, run_id DESC
"""  # noqa: S608 - constants only

APPROVALS = """
    SELECT run_step.run_id, approval_id, state, roles, decided_at, valid_until,
           (SELECT name FROM approval_vote AS vote
             WHERE vote.approval_id = approval.approval_id AND vote.yes
             ORDER BY at DESC LIMIT 1) AS approver,
           ARRAY(SELECT principal_id FROM approval_vote AS vote
                  WHERE vote.approval_id = approval.approval_id AND vote.yes) AS voters
      FROM run_step
      JOIN approval USING (task_id)
     WHERE run_step.run_id = ANY($1::uuid[])
     ORDER BY approval.created_at, approval_id
"""

IS_A_RUN = "SELECT EXISTS (SELECT FROM run WHERE run_id = $1)"

NOW = "SELECT now()"


async def find(db: Connection, run_id: UUID) -> RepairRow | None:
    """Return a repair; None for a run that is none, and where there is no such run."""
    row = await db.fetchrow(FIND, run_id)
    return None if row is None else RepairRow.from_row(row)


async def newest(
    db: Connection, wanted: RepairFilter, *, limit: int, offset: int, most_bytes: int = MOST_PAGE_BYTES
) -> list[RepairRow]:
    """Return matching repairs without their steps, newest first, and none after those that have `most_bytes`
    together.
    """
    async with db.transaction(readonly=True):
        await db.execute(PLAN_EACH)
        rows = await db.fetch(LIST, wanted.status, wanted.service, limit, offset, most_bytes)
    return [RepairRow.from_row(row) for row in rows]


async def approvals(db: Connection, run_ids: Collection[UUID]) -> dict[UUID, list[Asked]]:
    """Return the approvals of the tasks of runs, each run's in their order."""
    found: dict[UUID, list[Asked]] = {}
    for row in await db.fetch(APPROVALS, list(run_ids)) if run_ids else []:
        found.setdefault(row["run_id"], []).append(Asked.from_row(row))
    return found


async def is_a_run(db: Connection, run_id: UUID) -> bool:
    """Say whether a run has this id."""
    return bool(await db.fetchval(IS_A_RUN, run_id))


async def now(db: Connection) -> datetime:
    """Return the time, by the database's clock."""
    time: datetime = await db.fetchval(NOW)
    return time
