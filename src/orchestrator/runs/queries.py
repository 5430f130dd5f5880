"""All SQL about runs, and about the rows that link them to tasks.

Whoever advances a run locks its row, and locks no task and no agent while holding it: tasks are dispatched and
cancelled afterwards. Keys of runs are held only by those who have locked the row of theirs.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from common.compose import COMPOSE_REPAIR
from common.messages import LAST_STEP
from common.plans.model import Plan
from common.plans.status import RunStatus
from orchestrator.database.pages import MOST_PAGE_BYTES, Listing
from orchestrator.database.pool import Connection
from orchestrator.events import queries as events
from orchestrator.events.model import NewEvent
from orchestrator.identities.model import Caller
from orchestrator.runs.model import (
    Ending,
    KnownRun,
    Link,
    NewLink,
    NewRun,
    Pending,
    Run,
    RunFilter,
    Summary,
    ToldFor,
    stored_caller,
)

COLUMNS = """
    run_id, request_id, trace_id, name, plan, inputs, status, key, admitted, about, requested_by, created_at, queued_at,
    started_at, finished_at, ending, error_message, cancelled_by,
    EXISTS (SELECT FROM principal
             WHERE principal_id = (requested_by->>'principal_id')::uuid AND disabled_at IS NOT NULL)
    AS starter_is_disabled
"""

INSERT = f"""
    INSERT INTO run (run_id, request_id, trace_id, name, plan, inputs, digest, status, key, about, requested_by)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', $8, $9, $10)
        ON CONFLICT DO NOTHING
 RETURNING {COLUMNS}
"""  # noqa: S608 - constants only

KNOWN = "SELECT run_id, request_id, digest FROM run WHERE run_id = $1 OR request_id = $2"

GET = f"""
    SELECT {COLUMNS}
      FROM run
     WHERE run_id = $1
"""  # noqa: S608 - constants only

LOCK = GET + " FOR UPDATE"

LOCK_OPEN = GET + " AND finished_at IS NULL FOR UPDATE"

# Whoever else is at it will see what has happened until then, or be told of it.
TRY_OPEN = LOCK_OPEN + " SKIP LOCKED"

SUMMARY = """
    run_id, request_id, trace_id, name, status, key, about->>'service' AS service,
    requested_by->>'name' AS requested_by, created_at, queued_at, started_at, finished_at, error_message, cancelled_by
"""

SUMMARY_OF = f"""
    SELECT {SUMMARY}
      FROM run
     WHERE run_id = $1
"""  # noqa: S608 - constants only

# One plan for all filters would read every run to find the few of a service.
PLAN_EACH = "SET LOCAL plan_cache_mode = force_custom_plan"

# What lies beyond the limit on bytes is not sent; what callers may make large is counted.
LIST = f"""
    WITH page AS (
        SELECT {SUMMARY}
          FROM run
         WHERE ($1::text IS NULL OR status = $1)
           AND ($2::text IS NULL OR name = $2 AND name <> '')
           AND ($3::text IS NULL OR about->>'service' = $3 AND about->>'service' IS NOT NULL)
           AND ($4::timestamptz IS NULL OR (created_at, run_id) < ($4, $5::uuid))
         ORDER BY created_at DESC, run_id DESC
        OFFSET $6
         LIMIT $7 + 1
    ), measured AS (
        SELECT *, sum(octet_length(name) + coalesce(octet_length(error_message), 0))
                      OVER (ORDER BY created_at DESC, run_id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                      AS bytes_before
          FROM page
    )
    SELECT *, (SELECT count(*) FROM page) AS found
      FROM measured
     WHERE coalesce(bytes_before, 0) < $8
     ORDER BY created_at DESC, run_id DESC
     LIMIT $7
"""  # noqa: S608 - constants only

IS_TOLD = """
    s.step IN (SELECT told.step
                 FROM unnest($2::text[], $3::text[]) AS told (step, before)
                WHERE before IS NULL
                   OR NOT EXISTS (SELECT FROM run_step AS begun
                                   WHERE begun.run_id = $1 AND begun.step = before AND begun.kind = 'step'
                                     AND NOT begun.superseded))
"""

# What a task returned and wrote is read only of steps that others are yet to refer to, and of them only of the rows
# that a reference can mean: the newest of each step, the newest that was superseded, and the newest that succeeded. A
# task that there is after all stands for its row, whatever kept another orchestrator from dispatching it.
LINKS = f"""
    SELECT step, kind, number, task_id, CASE WHEN status IS NULL THEN parameters END AS parameters,
           CASE WHEN status IS NULL THEN hints END AS hints, CASE WHEN status IS NULL THEN problem END AS problem,
           superseded, at, work_type, status, attempt, agent_id, approval_id, exit_code, error_message, error_code,
           finished_at, EXISTS (SELECT FROM stopping WHERE stopping.task_id = link.task_id) AS is_stopping,
           CASE WHEN is_told THEN (SELECT result FROM task WHERE task.task_id = link.task_id) END AS result,
           CASE WHEN is_told THEN coalesce((SELECT output FROM task WHERE task.task_id = link.task_id), '')
                ELSE '' END AS output
      FROM (SELECT s.step, s.kind, s.number, s.task_id, s.parameters, s.hints, s.problem, s.superseded, s.at,
                   t.work_type, t.status, coalesce(t.attempt, 0) AS attempt, t.agent_id, t.approval_id, t.exit_code,
                   t.error_message, t.error_code, t.finished_at,
                   {IS_TOLD} AND (
                       NOT s.superseded
                       OR s.number = max(s.number) FILTER (WHERE s.superseded) OVER of_one
                       OR s.number = max(s.number) FILTER (WHERE t.status = 'completed') OVER of_one) AS is_told
              FROM run_step s
              LEFT JOIN task t ON t.task_id = s.task_id
             WHERE s.run_id = $1
            WINDOW of_one AS (PARTITION BY s.step, s.kind)) AS link
     ORDER BY step, kind, number
"""  # noqa: S608 - constants only

# Of the rows of open runs those whose tasks are this agent's, as far as it takes to say how they stand.
ON_HOST = """
    SELECT s.step, s.kind, s.number, s.task_id, NULL::jsonb AS parameters, NULL::jsonb AS hints,
           NULL::text AS problem, s.superseded, s.at, t.work_type, t.status, t.attempt, t.agent_id
      FROM run
      JOIN run_step s USING (run_id)
      JOIN task t ON t.task_id = s.task_id
     WHERE run.finished_at IS NULL AND NOT s.superseded AND t.agent_id = $1
     ORDER BY s.task_id
"""

SHOWN = f"""
    SELECT s.step, s.kind, s.number, s.task_id, NULL::jsonb AS parameters, NULL::jsonb AS hints,
           CASE WHEN t.task_id IS NULL THEN s.problem END AS problem, s.superseded, s.at, t.work_type, t.status,
           EXISTS (SELECT FROM stopping WHERE stopping.task_id = t.task_id) AS is_stopping,
           coalesce(t.attempt, 0) AS attempt, t.agent_id,
           agent_name(t.agent_id), t.approval_id, coalesce(t.progress, '') AS progress, t.exit_code, t.error_message,
           t.error_code, t.started_at, t.finished_at,
           CASE WHEN NOT s.superseded THEN t.result END AS result,
           CASE WHEN NOT s.superseded AND {IS_TOLD} THEN coalesce(t.output, '') ELSE '' END AS output
      FROM run_step s
      LEFT JOIN task t ON t.task_id = s.task_id
     WHERE s.run_id = $1
     ORDER BY s.at, s.step
"""  # noqa: S608 - constants only

# Rows and events in one round trip, for which the next step waits.
ADD_LINKS = f"""
    WITH linked AS (
        INSERT INTO run_step (run_id, step, kind, number, task_id, parameters, hints, problem)
        SELECT $1, new.step, new.kind, new.number, new.task_id, new.parameters, new.hints, new.problem
          FROM unnest($2::text[], $3::text[], $4::smallint[], $5::uuid[], $6::jsonb[], $7::jsonb[], $8::text[])
                 AS new (step, kind, number, task_id, parameters, hints, problem)
     RETURNING step
    ), {events.told(9, of="WHERE (SELECT count(*) FROM linked) >= 0")}
    SELECT
"""  # noqa: S608 - constants only

# Whoever wrote the row may be dispatching its task at this moment: see `refused`.
REFUSE = """
    UPDATE run_step SET problem = $5, task_id = $6
     WHERE run_id = $1 AND step = $2 AND kind = $3 AND number = $4 AND problem IS NULL
       AND NOT EXISTS (SELECT FROM task WHERE task.task_id = $6)
 RETURNING run_id
"""

REFUSED = "SELECT task_id FROM run_step WHERE task_id = ANY($1::uuid[]) AND problem IS NOT NULL"

SUPERSEDE = """
    UPDATE run_step SET superseded = true
     WHERE run_id = $1 AND step = ANY($2::text[]) AND kind = 'step' AND NOT superseded
"""

SUPERSEDE_UNDOS = "UPDATE run_step SET superseded = true WHERE run_id = $1 AND kind = 'undo' AND NOT superseded"

# The clock, not the time of the transaction: that may have begun before the run did.
STAND = """
    UPDATE run
       SET status = $2, ending = $3, error_message = $4,
           started_at = CASE WHEN $5 THEN coalesce(started_at, clock_timestamp()) ELSE started_at END,
           finished_at = CASE WHEN $6 THEN clock_timestamp() END,
           admitted = admitted AND NOT $6
     WHERE run_id = $1
 RETURNING coalesce(finished_at - coalesce(started_at, queued_at), interval '0') AS took
"""

CANCEL = "UPDATE run SET cancelled_by = $2 WHERE run_id = $1"

ABANDON = "UPDATE run SET ending = 'abandoned', error_message = $2 WHERE run_id = $1"

RETRY = """
    UPDATE run
       SET status = 'pending', plan = $2, requested_by = $3, queued_at = clock_timestamp(),
           started_at = NULL, finished_at = NULL, ending = NULL, error_message = NULL, cancelled_by = NULL
     WHERE run_id = $1
"""

HOLD_KEY = "SELECT pg_advisory_xact_lock(hashtextextended('chiffon.run ' || $1, 0))"

ADMIT = """
    UPDATE run SET admitted = true
     WHERE run_id = $1
       AND NOT EXISTS (SELECT FROM run AS other
                        WHERE other.key = run.key AND other.finished_at IS NULL AND other.run_id <> run.run_id
                          AND (other.admitted OR (other.queued_at, other.run_id) < (run.queued_at, run.run_id)))
 RETURNING run_id
"""

BEFORE = """
    SELECT run_id
      FROM run
     WHERE key = $1 AND finished_at IS NULL AND run_id <> $2
       AND (admitted OR (queued_at, run_id) < ($3::timestamptz, $2))
     ORDER BY admitted DESC, queued_at, run_id
     LIMIT 1
"""

NEXT_OF_KEY = """
    SELECT run_id, trace_id
      FROM run
     WHERE key = $1 AND finished_at IS NULL AND NOT admitted
     ORDER BY queued_at, run_id
     LIMIT 1
"""

# Those that wait in line behind others are left out, unless they are to end: nothing else can become of them now. A
# page ends with the run whose rows reach the limit, for each row is compared with its task.
OPEN = f"""
    WITH page AS (
        SELECT run_id, trace_id, status, cancelled_by, ending, admitted, waits, queued_at
          FROM run
         CROSS JOIN LATERAL (
            SELECT key IS NOT NULL AND NOT admitted AND EXISTS (
                   SELECT FROM run AS other
                    WHERE other.key = run.key AND other.finished_at IS NULL AND other.run_id <> run.run_id
                      AND (other.admitted OR (other.queued_at, other.run_id) < (run.queued_at, run.run_id))) AS waits
         ) AS line
         WHERE finished_at IS NULL AND run_id > $1 AND (NOT waits OR cancelled_by IS NOT NULL OR ending IS NOT NULL)
         ORDER BY run_id
         LIMIT $2 + 1
    ), measured AS (
        SELECT *, sum((SELECT count(*) FROM run_step s WHERE s.run_id = page.run_id))
                      OVER (ORDER BY run_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS rows_before
          FROM page
    )
    SELECT run_id, trace_id, (SELECT count(*) FROM page) AS found,
           concat_ws(' ', status, cancelled_by IS NOT NULL, ending, admitted, waits, queued_at, (
               SELECT md5(string_agg(
                          concat_ws(':', s.step, s.kind, s.number, s.problem IS NULL, t.status, t.attempt,
                                    CASE WHEN t.status = 'cancelled' THEN
                                        EXISTS (SELECT FROM stopping WHERE stopping.task_id = t.task_id) END,
                                    CASE WHEN t.work_type = '{COMPOSE_REPAIR}' THEN (
                                        SELECT task_step.status FROM task_step
                                         WHERE task_step.task_id = t.task_id AND task_step.attempt = t.attempt
                                           AND task_step.name = '{LAST_STEP}') END),
                          ' ' ORDER BY s.step, s.kind, s.number))
                 FROM run_step s
                 LEFT JOIN task t ON t.task_id = s.task_id
                WHERE s.run_id = run.run_id AND NOT s.superseded
           )) AS fingerprint
      FROM measured AS run
     WHERE coalesce(rows_before, 0) < $3
     ORDER BY run_id
     LIMIT $2
"""  # noqa: S608 - constants only


async def insert(db: Connection, new: NewRun) -> Run | None:
    """Store a run, which nobody else sees or locks until the transaction ends; None when one of its ids is taken."""
    plan, about = stored_plan(new.plan), dict(new.about)
    asker = stored_caller(new.requested_by)
    ids = (new.run_id, new.request_id, new.trace_id)
    row = await db.fetchrow(INSERT, *ids, new.name, plan, dict(new.inputs), new.digest, new.key, about, asker)
    return None if row is None else Run.from_row(row)


async def known(db: Connection, run_id: UUID, request_id: UUID) -> list[KnownRun]:
    """Return the runs that have one of these ids."""
    return [KnownRun(**row) for row in await db.fetch(KNOWN, run_id, request_id)]


async def find(db: Connection, run_id: UUID) -> Run | None:
    """Return a run; None when there is none."""
    row = await db.fetchrow(GET, run_id)
    return None if row is None else Run.from_row(row)


async def summary(db: Connection, run_id: UUID) -> Summary | None:
    """Return a run without its plan; None when there is none."""
    row = await db.fetchrow(SUMMARY_OF, run_id)
    return None if row is None else Summary.from_row(row)


async def lock(db: Connection, run_id: UUID) -> Run | None:
    """Return a run, and keep others from changing it until the transaction ends; None when there is none."""
    row = await db.fetchrow(LOCK, run_id)
    return None if row is None else Run.from_row(row)


async def lock_open(db: Connection, run_id: UUID, *, wait: bool) -> Run | None:
    """Do what `lock` does; None also for a run that has ended, or without `wait` one that somebody else has locked."""
    row = await db.fetchrow(LOCK_OPEN if wait else TRY_OPEN, run_id)
    return None if row is None else Run.from_row(row)


async def newest(
    db: Connection, wanted: RunFilter, *, limit: int, most_bytes: int = MOST_PAGE_BYTES
) -> Listing[Summary]:
    """Return matching runs, newest first: at most `limit`, and none after those that have `most_bytes` together."""
    at, run_id = wanted.before if wanted.before is not None else (None, None)
    async with db.transaction(readonly=True):
        await db.execute(PLAN_EACH)
        rows = await db.fetch(
            LIST, wanted.status, wanted.name, wanted.service, at, run_id, wanted.offset, limit, most_bytes
        )
    found = [Summary.from_row({name: row[name] for name in Summary.__slots__}) for row in rows]
    return Listing(found, has_more=bool(rows) and rows[0]["found"] > len(rows))


async def links(db: Connection, run_id: UUID, *, told: Collection[ToldFor]) -> list[Link]:
    """Return the rows of a run, each step's in the order of their numbers, with how their tasks stand.

    `told` says of which steps the results and output are needed.
    """
    steps, before = [step for step, _ in told], [step for _, step in told]
    return [Link.from_row(row) for row in await db.fetch(LINKS, run_id, steps, before)]


async def shown(db: Connection, run_id: UUID, *, told: Collection[ToldFor]) -> list[Link]:
    """Return the rows of a run in the order in which they began, with what people see of their tasks.

    `told` says of which steps the output is needed.
    """
    steps, before = [step for step, _ in told], [step for _, step in told]
    return [Link.from_row(row) for row in await db.fetch(SHOWN, run_id, steps, before)]


async def add_links(db: Connection, run_id: UUID, new: Sequence[NewLink], told: Sequence[NewEvent]) -> None:
    """Store the rows of steps and undos that begin, and write events; call it last in the transaction."""
    if new or told:
        await db.execute(
            ADD_LINKS,
            run_id,
            [one.step for one in new],
            [one.kind for one in new],
            [one.number for one in new],
            [one.task_id for one in new],
            [None if one.parameters is None else dict(one.parameters) for one in new],
            [None if one.hints is None else dict(one.hints) for one in new],
            [one.problem for one in new],
            *events.columns(told),
        )


async def refuse(db: Connection, run_id: UUID, link: NewLink) -> bool:
    """Note why a step has no task after all; False when that is noted already, or when it has its task."""
    return await db.fetchrow(REFUSE, run_id, link.step, link.kind, link.number, link.problem, link.task_id) is not None


async def refused(db: Connection, task_ids: Collection[UUID]) -> list[UUID]:
    """Return the tasks, dispatched just now, of which another orchestrator has noted that there will be none.

    One that notes it after this sees the task when it looks next.
    """
    return [row["task_id"] for row in await db.fetch(REFUSED, list(task_ids))]


async def supersede(db: Connection, run_id: UUID, steps: Sequence[str], *, undos: bool = False) -> None:
    """Let steps of a locked run begin anew, and with `undos` whatever was undone."""
    await db.execute(SUPERSEDE, run_id, list(steps))
    if undos:
        await db.execute(SUPERSEDE_UNDOS, run_id)


async def stand(
    db: Connection,
    run_id: UUID,
    status: RunStatus,
    *,
    ending: Ending | None,
    error_message: str | None,
    has_begun: bool,
) -> timedelta:
    """Say where a locked run stands; return how long one took that has ended. It lets the next of its key go."""
    took: timedelta = await db.fetchval(STAND, run_id, status, ending, error_message, has_begun, status.is_final)
    return took


async def cancel(db: Connection, run_id: UUID, *, by: str) -> None:
    """Note that a locked run is to end."""
    await db.execute(CANCEL, run_id, by)


async def abandon(db: Connection, run_id: UUID, *, reason: str) -> None:
    """Note that a locked run is to end as it stands."""
    await db.execute(ABANDON, run_id, reason)


async def retry(db: Connection, run_id: UUID, plan: Plan, *, by: Caller) -> None:
    """Let a locked run that has ended go on with this plan, in the name of who retries it."""
    await db.execute(RETRY, run_id, stored_plan(plan), stored_caller(by))


async def admit(db: Connection, run: Run) -> bool:
    """Let a locked run go, unless another of its key is under way or comes before it; say whether it goes."""
    await db.execute(HOLD_KEY, run.key)
    return await db.fetchrow(ADMIT, run.run_id) is not None


async def before(db: Connection, run: Run) -> UUID | None:
    """Return the run that one which waits for its key has to wait for; None when there is none."""
    run_id: UUID | None = await db.fetchval(BEFORE, run.key, run.run_id, run.queued_at)
    return run_id


async def next_of_key(db: Connection, key: str) -> tuple[UUID, UUID] | None:
    """Return the run that goes next, with its trace; None when none waits."""
    row = await db.fetchrow(NEXT_OF_KEY, key)
    return None if row is None else (row["run_id"], row["trace_id"])


async def on_host(db: Connection, agent_id: UUID) -> list[Link]:
    """Return the rows of open runs whose tasks this agent has, or had last."""
    return [Link.from_row(row) for row in await db.fetch(ON_HOST, agent_id)]


async def open_runs(db: Connection, *, after: UUID, limit: int, most_rows: int) -> Listing[Pending]:
    """Return open runs in the order of their ids, those above `after`: at most `limit`, and none after those that have
    `most_rows` rows together.
    """
    rows = await db.fetch(OPEN, after, limit, most_rows)
    found = [Pending(row["run_id"], row["trace_id"], row["fingerprint"]) for row in rows]
    return Listing(found, has_more=bool(rows) and rows[0]["found"] > len(rows))


def stored_plan(plan: Plan) -> dict[str, Any]:
    """Return a plan as the ledger holds it."""
    return plan.model_dump(mode="json", by_alias=True, exclude_defaults=True)
