"""All SQL about tasks."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from common.lifecycle import Status
from orchestrator.database.pages import MOST_PAGE_BYTES, Listing
from orchestrator.database.pool import Connection
from orchestrator.tasks.columns import COLUMNS, columns
from orchestrator.tasks.model import Identity, NewTask, Progressed, Task, TaskFilter

# ON CONFLICT covers both keys, task_id and request_id, also between rows of one call. A task with a key is not admitted
# yet: `keys.admission` does that. Rows are numbered in the order of the call.
INSERT = """
    INSERT INTO task (task_id, request_id, trace_id, work_type, agent_type, parameters, hints, content_digest,
                      priority, idempotent, max_attempts, status, ordering_key, concurrency_key, first_in_order,
                      admitted, expires_at, rerun_of, precedence, rank, aim, effect, policy_rule, policy_version,
                      work_digest, confinement, approval_id, name, labels, requested_by, not_before)
    SELECT new.task_id, new.request_id, new.trace_id, new.work_type, new.agent_type, new.parameters, new.hints,
           new.content_digest, new.priority, new.idempotent, new.max_attempts, new.status, new.ordering_key,
           new.concurrency_key, new.ordering_key IS NULL, coalesce(new.ordering_key, new.concurrency_key) IS NULL,
           now() + make_interval(secs => extract(epoch FROM new.pause + new.expires_after)), new.rerun_of,
           new.precedence, task_rank(now(), new.precedence, $29), new.aim, new.effect, new.policy_rule,
           new.policy_version, new.work_digest, new.confinement, new.approval_id, new.name, new.labels,
           new.requested_by, CASE WHEN new.pause > interval '0'
                                  THEN now() + make_interval(secs => extract(epoch FROM new.pause)) END
      FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::jsonb[], $7::jsonb[], $8::bytea[],
                  $9::smallint[], $10::boolean[], $11::smallint[], $12::interval[], $13::uuid[], $14::bigint[],
                  $15::text[], $16::text[], $17::text[], $18::bytea[], $19::jsonb[], $20::text[], $21::jsonb[],
                  $22::text[], $23::text[], $24::text[], $25::text[], $26::text[], $27::uuid[],
                  $28::interval[])
             WITH ORDINALITY AS new (task_id, request_id, trace_id, work_type, agent_type, parameters, hints,
                                     content_digest, priority, idempotent, max_attempts, expires_after, rerun_of,
                                     precedence, effect, policy_rule, policy_version, work_digest, confinement,
                                     name, labels, requested_by, ordering_key, concurrency_key, aim, status,
                                     approval_id, pause, position)
     ORDER BY new.position
        ON CONFLICT DO NOTHING
 RETURNING task_id, request_id
"""

IDENTITIES = """
    SELECT task_id, request_id, trace_id, content_digest, approval_id,
           CASE status WHEN 'awaiting_approval' THEN status ELSE 'pending' END AS status
      FROM task
     WHERE task_id = ANY($1::uuid[]) OR request_id = ANY($2::uuid[])
"""

GET = f"""
    SELECT {COLUMNS}, now() AS read_at
      FROM task
     WHERE task_id = ANY($1::uuid[])
"""  # noqa: S608 - constants only

SHOW = f"""
    SELECT {COLUMNS}, agent_name(agent_id)
      FROM task
     WHERE task_id = $1
"""  # noqa: S608 - constants only

# Rows are always locked in the order of their ids, so that two transactions never wait for each other.
LOCK = GET + " ORDER BY task_id FOR UPDATE"

# A list shows neither output nor results.
LISTED = COLUMNS.replace("task.output", "'' AS output").replace("task.result", "NULL::jsonb AS result")

# What lies beyond the limit on bytes is not sent; what callers and agents may make large is counted.
LIST = f"""
    WITH page AS (
        SELECT {LISTED}
          FROM task
         WHERE ($1::text[] IS NULL OR status = ANY($1))
           AND ($2::text IS NULL OR work_type = $2)
           AND ($3::text IS NULL OR agent_type = $3)
           AND ($4::uuid IS NULL OR agent_id = $4)
           AND ($5::uuid IS NULL OR trace_id = $5)
           AND ($6::timestamptz IS NULL OR created_at > $6)
           AND ($7::timestamptz IS NULL OR (created_at, task_id) < ($7, $8::uuid))
           AND ($10::text IS NULL OR name = $10 AND name <> '')
           AND ($11::jsonb IS NULL OR labels @> $11 AND labels <> '{{}}')
           AND ($12::text IS NULL OR requested_by = $12)
         ORDER BY created_at DESC, task_id DESC
         LIMIT $9 + 1
    ), measured AS (
        SELECT *, sum(octet_length(parameters::text) + octet_length(hints::text) + octet_length(labels::text)
                      + coalesce(octet_length(error_message), 0))
                      OVER (ORDER BY created_at DESC, task_id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                      AS bytes_before
          FROM page
    )
    SELECT {COLUMNS}, agent_name(agent_id), (SELECT count(*) FROM page) AS found
      FROM measured AS task
     WHERE coalesce(bytes_before, 0) < $13
     ORDER BY created_at DESC, task_id DESC
     LIMIT $9
"""  # noqa: S608 - constants only

# What an operator sees of an execution has neither parameters nor what was returned.
ENDED = COLUMNS.replace("task.parameters", "'{}'::jsonb AS parameters").replace("task.result", "NULL::jsonb AS result")

LAST_ENDED = f"""
    SELECT {ENDED}
      FROM task
     WHERE finished_at IS NOT NULL
     ORDER BY finished_at DESC, task_id
     LIMIT $1
"""  # noqa: S608 - constants only

CANCEL = """
    UPDATE task
       SET status = 'cancelled', claim_id = NULL, lease_expires_at = NULL, finished_at = now(), updated_at = now(),
           outcome = CASE WHEN status = 'running' THEN 'cancelled' END,
           duration_ms = CASE WHEN status = 'running'
                              THEN greatest(0, extract(epoch FROM now() - started_at) * 1000)::bigint END
     WHERE task_id = ANY($1::uuid[]) AND status IN ('awaiting_approval', 'pending', 'running')
"""

COUNT_OF_TRACE = """
    SELECT count(*) AS known,
           count(*) FILTER (WHERE status IN ('completed', 'failed', 'cancelled')) AS ended
      FROM task
     WHERE trace_id = $1
"""

OPEN_OF_TRACE = """
    SELECT task_id
      FROM task
     WHERE trace_id = $1 AND task_id > $2 AND status IN ('awaiting_approval', 'pending', 'running')
     ORDER BY task_id
     LIMIT $3
"""

EXPIRED = """
    SELECT task_id FROM task
     WHERE status = 'pending' AND expires_at <= now()
     ORDER BY expires_at LIMIT $1
"""

LOCK_EXPIRED = GET + " AND status = 'pending' AND expires_at <= now() ORDER BY task_id FOR UPDATE SKIP LOCKED"

EXPIRE = """
    UPDATE task
       SET status = 'cancelled', finished_at = now(), updated_at = now(),
           error_code = $2, error_message = new.reason
      FROM unnest($1::uuid[], $3::text[]) AS new (task_id, reason)
     WHERE task.task_id = new.task_id AND task.status = 'pending'
"""

# Retries that wait, of approvals that hold no longer. `task_retry_by_approval` is the index.
LAPSED = """
    SELECT task.task_id
      FROM task JOIN approval ON approval.approval_id = task.approval_id
     WHERE task.status = 'pending' AND task.attempt > 0 AND task.approval_id IS NOT NULL
       AND approval.valid_until <= now()
     LIMIT $1
"""

# What waits of fan-outs of which as many tasks failed as stop the rest.
OF_STOPPED_FAN_OUTS = """
    SELECT task.task_id, failures.number
      FROM task
      JOIN concurrency_limit AS held ON held.concurrency_key = task.concurrency_key
     CROSS JOIN LATERAL (
        SELECT count(*) AS number
          FROM task AS other
         WHERE other.concurrency_key = held.concurrency_key AND other.concurrency_key LIKE 'fan-out:%'
           AND other.status = 'failed'
     ) AS failures
     WHERE task.concurrency_key LIKE 'fan-out:%' AND task.concurrency_key IS NOT NULL AND task.status = 'pending'
       AND task.first_in_order AND NOT task.admitted AND held.stop_after <= failures.number
     LIMIT $1
"""

# All of them have the same parameters, which nobody asks for here.
PARTS = COLUMNS.replace("task.parameters", "'{}'::jsonb AS parameters")

OF_FAN_OUT = f"""
    SELECT {PARTS}, agent_name(coalesce(agent_id, (hints->>'agent_id')::uuid))
      FROM task
     WHERE concurrency_key = $1 AND concurrency_key LIKE 'fan-out:%'
     ORDER BY dispatch_no
"""  # noqa: S608 - constants only

NOW = "SELECT now()"

# What the ledger says already changes nothing, so that a report that comes twice is one.
SET_PROGRESS = """
    UPDATE task SET progress = new.progress, updated_at = now()
      FROM unnest($1::uuid[], $2::smallint[], $3::uuid[], $4::text[])
             AS new (task_id, attempt, agent_id, progress)
     WHERE task.task_id = new.task_id AND task.attempt = new.attempt AND task.agent_id = new.agent_id
       AND task.status = 'running' AND task.progress <> new.progress
 RETURNING task.task_id, task.attempt, task.trace_id, task.request_id, task.agent_id, task.progress
"""


async def insert(db: Connection, tasks: Sequence[NewTask], *, ageing: timedelta) -> set[tuple[UUID, UUID]]:
    """Store tasks and return (task_id, request_id) of those that were new under both of their keys.

    `ageing` is how long a wait is worth one level of priority.
    """
    rows = await db.fetch(
        INSERT,
        *columns(tasks),
        [task.ordering_key for task in tasks],
        [task.concurrency_key for task in tasks],
        [task.aim for task in tasks],
        [task.status for task in tasks],
        [task.effective_approval_id for task in tasks],
        [task.pause for task in tasks],
        ageing,
    )
    return {(row["task_id"], row["request_id"]) for row in rows}


async def identities(db: Connection, tasks: Sequence[NewTask]) -> list[Identity]:
    """Return what the ledger already knows under any of the tasks' ids."""
    rows = await db.fetch(IDENTITIES, [task.task_id for task in tasks], [task.request_id for task in tasks])
    return [
        Identity(
            row["task_id"],
            row["request_id"],
            row["trace_id"],
            row["content_digest"],
            Status(row["status"]),
            row["approval_id"],
        )
        for row in rows
    ]


async def find(db: Connection, task_id: UUID) -> Task | None:
    """Return a task; None when there is none."""
    row = await db.fetchrow(GET, [task_id])
    return None if row is None else Task.from_row(row)


async def show(db: Connection, task_id: UUID) -> Task | None:
    """Return a task with the name of its agent; None when there is none."""
    row = await db.fetchrow(SHOW, task_id)
    return None if row is None else Task.from_row(row)


async def get(db: Connection, task_ids: Sequence[UUID]) -> dict[UUID, Task]:
    """Return tasks by their ids."""
    return {row["task_id"]: Task.from_row(row) for row in await db.fetch(GET, list(task_ids))}


async def lock(db: Connection, task_ids: Sequence[UUID]) -> dict[UUID, Task]:
    """Return tasks by their ids and keep others from changing them until the transaction ends."""
    return {row["task_id"]: Task.from_row(row) for row in await db.fetch(LOCK, list(task_ids))}


async def expired(db: Connection, *, limit: int) -> list[UUID]:
    """Return tasks that have waited longer than they may, the longest expired first."""
    return [row["task_id"] for row in await db.fetch(EXPIRED, limit)]


async def lock_expired(db: Connection, task_ids: Sequence[UUID]) -> list[Task]:
    """Return those of the tasks that still wait and may not, locked; what somebody else works on is left out."""
    return [Task.from_row(row) for row in await db.fetch(LOCK_EXPIRED, list(task_ids))]


async def lapsed(db: Connection, *, limit: int) -> list[UUID]:
    """Return tasks that wait for another attempt, which their approvals do not cover any more."""
    return [row["task_id"] for row in await db.fetch(LAPSED, limit)]


async def of_stopped_fan_outs(db: Connection, *, limit: int) -> dict[UUID, int]:
    """Return tasks that wait and will never begin, since too many of their fan-out failed; each with how many did."""
    return {row["task_id"]: row["number"] for row in await db.fetch(OF_STOPPED_FAN_OUTS, limit)}


async def of_fan_out(db: Connection, key: str) -> list[Task]:
    """Return the tasks of a fan-out by their concurrency key, with the names of their agents, without parameters."""
    return [Task.from_row(row) for row in await db.fetch(OF_FAN_OUT, key)]


async def expire(db: Connection, reasons: Mapping[UUID, str], *, error_code: int | None) -> None:
    """Cancel locked tasks that wait, each with its reason."""
    await db.execute(EXPIRE, list(reasons), error_code, list(reasons.values()))


async def now(db: Connection) -> datetime:
    """Return the time of the transaction, by the database's clock."""
    time: datetime = await db.fetchval(NOW)
    return time


async def time_of(db: Connection, read: Collection[Task]) -> datetime:
    """Return what `now` does: the tasks that this transaction has read tell it, if there are any."""
    for task in read:
        if task.read_at is not None:
            return task.read_at
    return await now(db)


async def last_ended(db: Connection, *, limit: int) -> list[Task]:
    """Return the tasks that ended last, the newest end first."""
    return [Task.from_row(row) for row in await db.fetch(LAST_ENDED, limit)]


async def newest(db: Connection, wanted: TaskFilter, *, limit: int, most_bytes: int = MOST_PAGE_BYTES) -> Listing[Task]:
    """Return matching tasks, newest first, without their output and results.

    There are at most `limit`, and none after those that have `most_bytes` together.
    """
    at, task_id = wanted.before if wanted.before is not None else (None, None)
    rows = await db.fetch(
        LIST,
        wanted.statuses,
        wanted.work_type,
        wanted.agent_type,
        wanted.agent_id,
        wanted.trace_id,
        wanted.created_after,
        at,
        task_id,
        limit,
        wanted.name,
        None if not wanted.labels else dict(wanted.labels),
        wanted.requested_by,
        most_bytes,
    )
    found = [Task.from_row({name: value for name, value in row.items() if name != "found"}) for row in rows]
    return Listing(found, has_more=bool(rows) and rows[0]["found"] > len(rows))


async def cancel(db: Connection, task_ids: Sequence[UUID]) -> None:
    """Cancel locked tasks that have not ended; a running one loses its lease and its attempt ends."""
    await db.execute(CANCEL, list(task_ids))


async def count_of_trace(db: Connection, trace_id: UUID) -> tuple[int, int]:
    """Return how many tasks a trace has, and how many of them have ended."""
    row = await db.fetchrow(COUNT_OF_TRACE, trace_id)
    assert row is not None
    return row["known"], row["ended"]


async def open_of_trace(db: Connection, trace_id: UUID, *, after: UUID, limit: int) -> list[UUID]:
    """Return tasks of a trace that have not ended, in the order of their ids, those above `after`."""
    return [row["task_id"] for row in await db.fetch(OPEN_OF_TRACE, trace_id, after, limit)]


async def set_progress(db: Connection, reports: Sequence[tuple[UUID, int, UUID, str]]) -> list[Progressed]:
    """Store (task_id, attempt, agent_id, report) where that agent runs that attempt; return what is new."""
    if not reports:
        return []
    ordered = sorted(reports)
    lists = ([report[number] for report in ordered] for number in range(4))
    return [Progressed(*row) for row in await db.fetch(SET_PROGRESS, *lists)]
