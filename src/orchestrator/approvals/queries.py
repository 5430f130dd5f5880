"""All SQL about approvals, and about the tasks that wait for them.

Whoever changes both locks the rows of tasks before those of approvals. The keys of the tasks are held before
(`keys.admission`).
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from common.rest.approvals import ApprovalState
from orchestrator.approvals.model import Approval, ApprovalFilter, Comment, NewApproval, Vote, WaitingTask
from orchestrator.database.pool import Connection
from orchestrator.identities.model import Caller

NOW = "SELECT now()"

INSERT = """
    INSERT INTO approval (approval_id, digest, work_type, target, parameters, hints, effect, policy_version, rule,
                          approvers, roles, valid_for, requester_id, requested_by, note, task_id, trace_id, expires_at,
                          terms, approved_digest, known_to)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, make_interval(mins => $12), $13, $14, $15, $16, $17,
            now() + $18::interval, $19, $20, $21)
"""

SELECT = """
    SELECT approval_id, state, digest, approved_digest, work_type, target, parameters, hints, terms, effect,
           policy_version, rule, approvers, roles, valid_for, requester_id, requested_by, known_to, note, task_id,
           trace_id, created_at, expires_at, decided_at, valid_until, reason,
           (SELECT count(*) FROM approval_vote AS vote
             WHERE vote.approval_id = approval.approval_id AND vote.yes)::int AS yes
      FROM approval
"""

FIND = SELECT + " WHERE approval_id = $1"

# Rows are always locked in the order of their ids.
LOCK = SELECT + " WHERE approval_id = ANY($1::uuid[]) ORDER BY approval_id FOR UPDATE OF approval"

LOCK_OVERDUE = (
    SELECT
    + """
     WHERE approval_id = ANY($1::uuid[])
       AND ((state = 'waiting' AND expires_at <= now()) OR (state = 'approved' AND valid_until <= now()))
     ORDER BY approval_id
       FOR UPDATE OF approval SKIP LOCKED
"""
)

LIST = (
    SELECT
    + """
     WHERE ($1::text IS NULL OR state = $1)
       AND ($2::uuid IS NULL OR task_id = $2)
       AND ($3::uuid IS NULL OR trace_id = $3)
       AND ($4::timestamptz IS NULL OR (created_at, approval_id) < ($4, $5::uuid))
     ORDER BY created_at DESC, approval_id DESC
     LIMIT $6
"""
)

OVERDUE = """
    SELECT approval_id, task_id
      FROM approval
     WHERE state IN ('waiting', 'approved') AND coalesce(valid_until, expires_at) <= now()
     ORDER BY coalesce(valid_until, expires_at)
     LIMIT $1
"""

ADD_VOTE = """
    INSERT INTO approval_vote
           (approval_id, principal_id, name, yes, comment, token_id, token_created_by, token_age, until)
    VALUES ($1, $2, $3, $4, $5, $6, $7, now() - $8::timestamptz, $9)
 RETURNING principal_id, name, yes, comment, at, token_id, token_created_by, token_age, until
"""

VOTES = """
    SELECT principal_id, name, yes, comment, at, token_id, token_created_by, token_age, until
      FROM approval_vote
     WHERE approval_id = $1
     ORDER BY at, principal_id
"""

ADD_COMMENT = "INSERT INTO approval_comment (approval_id, principal_id, name, text) VALUES ($1, $2, $3, $4)"

COMMENTS = "SELECT name, text, at FROM approval_comment WHERE approval_id = $1 ORDER BY id"

# It holds no longer than each yes.
DECIDE = """
    UPDATE approval
       SET state = $2, decided_at = now(), reason = $3,
           valid_until = CASE WHEN $2 = 'approved' THEN least(
               now() + valid_for,
               (SELECT min(until) FROM approval_vote AS vote
                 WHERE vote.approval_id = approval.approval_id AND vote.yes)) END
     WHERE approval_id = ANY($1::uuid[]) AND state = 'waiting'
"""

LAPSE = "UPDATE approval SET state = 'expired', reason = $2 WHERE approval_id = $1 AND state IN ('waiting', 'approved')"

# Of an approval that is approved nothing but its end can follow, so a task that is given up takes it along.
CANCEL_FOR = """
    UPDATE approval SET state = 'cancelled', decided_at = coalesce(decided_at, now())
     WHERE task_id = ANY($1::uuid[]) AND state IN ('waiting', 'approved')
 RETURNING approval_id, task_id, trace_id
"""

BIND = """
    UPDATE approval SET task_id = new.task_id, trace_id = coalesce(approval.trace_id, new.trace_id)
      FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS new (approval_id, task_id, trace_id)
     WHERE approval.approval_id = new.approval_id AND approval.task_id IS NULL AND approval.state = 'approved'
"""

USE = "UPDATE approval SET state = 'used' WHERE approval_id = ANY($1::uuid[]) AND state = 'approved'"

LOCK_TASKS = """
    SELECT task_id, trace_id, request_id, work_type, agent_type, priority, aim, attempt, status, ordering_key,
           concurrency_key
      FROM task
     WHERE task_id = ANY($1::uuid[])
     ORDER BY task_id
       FOR UPDATE
"""

LET_GO = "UPDATE task SET status = 'pending', updated_at = now() WHERE task_id = $1 AND status = 'awaiting_approval'"

CANCEL_TASKS = """
    UPDATE task
       SET status = 'cancelled', finished_at = now(), updated_at = now(), error_code = $2, error_message = new.reason
      FROM unnest($1::uuid[], $3::text[]) AS new (task_id, reason)
     WHERE task.task_id = new.task_id AND task.status IN ('awaiting_approval', 'pending')
"""


async def now(db: Connection) -> datetime:
    """Return the time of the transaction, by the database's clock."""
    time: datetime = await db.fetchval(NOW)
    return time


async def insert(db: Connection, approvals: Sequence[NewApproval]) -> None:
    """Store approvals that wait."""
    await db.executemany(INSERT, [_row(new) for new in approvals])


async def find(db: Connection, approval_id: UUID) -> Approval | None:
    """Return an approval; None when there is none."""
    row = await db.fetchrow(FIND, approval_id)
    return None if row is None else Approval.from_row(row)


async def lock(db: Connection, approval_ids: Collection[UUID]) -> dict[UUID, Approval]:
    """Return approvals by their ids and keep others from changing them until the transaction ends."""
    return {row["approval_id"]: Approval.from_row(row) for row in await db.fetch(LOCK, list(approval_ids))}


async def newest(db: Connection, wanted: ApprovalFilter, *, limit: int) -> list[Approval]:
    """Return matching approvals, newest first."""
    at, before = wanted.before if wanted.before is not None else (None, None)
    rows = await db.fetch(LIST, wanted.state, wanted.task_id, wanted.trace_id, at, before, limit)
    return [Approval.from_row(row) for row in rows]


async def overdue(db: Connection, *, limit: int) -> list[tuple[UUID, UUID | None]]:
    """Return approvals, each with its task, that nobody answered in time, or whose work did not begin in time."""
    return [(row["approval_id"], row["task_id"]) for row in await db.fetch(OVERDUE, limit)]


async def lock_overdue(db: Connection, approval_ids: Collection[UUID]) -> list[Approval]:
    """Return those that are still overdue, locked; what somebody else works on is left out."""
    return [Approval.from_row(row) for row in await db.fetch(LOCK_OVERDUE, list(approval_ids))]


async def add_vote(
    db: Connection, approval_id: UUID, by: Caller, *, yes: bool, comment: str, until: datetime | None
) -> Vote:
    """Store what a person said, with which token, and until when it holds; the approval is locked."""
    assert by.token is not None, "a vote without a token does not count"
    token = (by.token_id, by.token.created_by, by.token.claimed_at)
    row = await db.fetchrow(ADD_VOTE, approval_id, by.principal_id, by.name, yes, comment, *token, until)
    assert row is not None
    return Vote(**row)


async def votes(db: Connection, approval_id: UUID) -> list[Vote]:
    """Return what people said, in order."""
    return [Vote(**row) for row in await db.fetch(VOTES, approval_id)]


async def add_comment(db: Connection, approval_id: UUID, by: Caller, text: str) -> None:
    """Store a remark."""
    await db.execute(ADD_COMMENT, approval_id, by.principal_id, by.name, text)


async def comments(db: Connection, approval_id: UUID) -> list[Comment]:
    """Return the remarks, in order."""
    return [Comment(**row) for row in await db.fetch(COMMENTS, approval_id)]


async def decide(db: Connection, approval_id: UUID, state: ApprovalState, *, reason: str | None = None) -> None:
    """End the waiting of a locked approval; one that is approved holds from now on."""
    await db.execute(DECIDE, [approval_id], state, reason)


async def lapse(db: Connection, reasons: Mapping[UUID, str]) -> None:
    """Let locked approvals lapse, each with its reason."""
    await db.executemany(LAPSE, list(reasons.items()))


async def cancel_for(db: Connection, task_ids: Collection[UUID]) -> list[tuple[UUID, UUID, UUID | None]]:
    """End the approvals of locked tasks that have ended; return (approval, task, trace) of those that had not."""
    rows = await db.fetch(CANCEL_FOR, list(task_ids))
    return [(row["approval_id"], row["task_id"], row["trace_id"]) for row in rows]


async def bind(db: Connection, uses: Collection[tuple[UUID, UUID, UUID]]) -> None:
    """Spend locked approvals on tasks: (approval, task, trace)."""
    await db.execute(BIND, *(list(column) for column in zip(*uses, strict=True)))


async def use(db: Connection, approval_ids: Collection[UUID]) -> None:
    """Note that the work of locked approvals begins."""
    await db.execute(USE, list(approval_ids))


async def lock_tasks(db: Connection, task_ids: Collection[UUID]) -> dict[UUID, WaitingTask]:
    """Return tasks by their ids and keep others from changing them until the transaction ends."""
    return {row["task_id"]: WaitingTask.from_row(row) for row in await db.fetch(LOCK_TASKS, list(task_ids))}


async def let_go(db: Connection, task_id: UUID) -> None:
    """Let a locked task wait for an agent from now on."""
    await db.execute(LET_GO, task_id)


async def cancel_tasks(db: Connection, reasons: Mapping[UUID, str], *, error_code: int) -> None:
    """Cancel locked tasks that have not begun, each with its reason."""
    await db.execute(CANCEL_TASKS, list(reasons), error_code, list(reasons.values()))


def _row(new: NewApproval) -> tuple[object, ...]:
    return (
        new.approval_id,
        new.digest,
        new.work_type,
        new.target,
        dict(new.parameters),
        dict(new.hints),
        new.effect,
        new.policy_version,
        new.rule,
        new.demand.approvers,
        list(new.demand.roles),
        new.demand.valid_minutes,
        new.requested_by.principal_id,
        new.requested_by.name,
        new.note,
        new.task_id,
        new.trace_id,
        new.waits,
        dict(new.terms),
        new.approved_digest,
        sorted(new.known_to),
    )
