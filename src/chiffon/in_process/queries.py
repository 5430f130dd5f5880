"""All SQL of executions and their events: SQLite, one connection, each function part of a transaction of its caller."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from chiffon.in_process.model import Claim, Execution
from common.lifecycle import Status

Connection = sqlite3.Connection

NAMES = tuple(one.name for one in fields(Execution))
COLUMNS = ", ".join(NAMES)
TIMES = ("created_at", "approval_expires_at", "started_at", "finished_at")


def insert(db: Connection, execution: Execution) -> bool:
    """Store a new execution; False when its id is taken."""
    done = db.execute(
        "INSERT INTO execution (execution_id, command, payload, digest, approval_id, requested_by, status,"
        " max_attempts, created_at, approval_expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            execution.execution_id,
            execution.command,
            json.dumps(execution.payload, ensure_ascii=False),
            execution.digest,
            execution.approval_id,
            execution.requested_by,
            execution.status,
            execution.max_attempts,
            _text(execution.created_at),
            _text(execution.approval_expires_at),
        ),
    )
    return done.rowcount == 1


def find(db: Connection, execution_id: str) -> Claim | None:
    """Return an execution with the fence of its last attempt; None when there is none."""
    row = db.execute(
        f"SELECT {COLUMNS}, fence FROM execution WHERE execution_id = ?",  # noqa: S608 - our own columns
        (execution_id,),
    ).fetchone()
    return None if row is None else _claim(row)


# SQLite uses the partial index of open executions only for a query that repeats its condition; without it a claim
# would read everything that ever ended.
OLDEST = (
    "SELECT execution_id FROM execution WHERE status IN ('awaiting_approval', 'pending', 'running')"
    " AND status = 'pending' AND (approved_by IS NULL OR approval_expires_at > ?) ORDER BY created_at, rowid LIMIT 1"
)


def begin_oldest(db: Connection, at: datetime) -> str | None:
    """Start an attempt of the oldest execution that waits and was not approved too long ago; return its id."""
    row = db.execute(OLDEST, (_text(at),)).fetchone()
    if row is None:
        return None
    db.execute(
        "UPDATE execution SET status = 'running', attempt = attempt + 1, fence = fence + 1, started_at = ?,"
        " error_message = NULL, error_code = NULL WHERE execution_id = ?",
        (_text(at), row[0]),
    )
    return str(row[0])


def finish(
    db: Connection,
    claim: Claim,
    status: Status,
    *,
    result: str | None,
    error: tuple[str | None, int | None],
    at: datetime | None,
) -> bool:
    """End an attempt, and with a time the execution; False when that attempt does not run any longer."""
    done = db.execute(
        "UPDATE execution SET status = ?, result = ?, error_message = ?, error_code = ?, finished_at = ?"
        " WHERE execution_id = ? AND fence = ? AND status = 'running'",
        (status, result, *error, _text(at), claim.execution.execution_id, claim.fence),
    )
    return done.rowcount == 1


def refuse(
    db: Connection, claim: Claim, *, error: tuple[str, int], at: datetime, approval_expires_at: datetime
) -> bool:
    """End an attempt in which nothing ran, so that it does not count; False when that attempt is over."""
    done = db.execute(
        "UPDATE execution SET status = 'failed', refused = 1, attempt = attempt - 1, started_at = NULL,"
        " error_message = ?, error_code = ?, finished_at = ?, approval_expires_at = ?"
        " WHERE execution_id = ? AND fence = ? AND status = 'running'",
        (*error, _text(at), _text(approval_expires_at), claim.execution.execution_id, claim.fence),
    )
    return done.rowcount == 1


def let_go(
    db: Connection,
    execution_id: str,
    status: Status,
    *,
    approved_by: str | None,
    approval_id: str | None,
    approval_expires_at: datetime | None,
) -> None:
    """Have an execution wait to be run, with the person who approved it, the id of its approval, and its time."""
    db.execute(
        "UPDATE execution SET status = ?, approved_by = ?, approval_id = ?, approval_expires_at = ?, refused = 0,"
        " finished_at = NULL, error_message = NULL, error_code = NULL WHERE execution_id = ?",
        (status, approved_by, approval_id, _text(approval_expires_at), execution_id),
    )


def end(db: Connection, execution_id: str, status: Status, *, error: tuple[str, int | None], at: datetime) -> None:
    """End an execution for good."""
    db.execute(
        "UPDATE execution SET status = ?, refused = 0, error_message = ?, error_code = ?, finished_at = ?"
        " WHERE execution_id = ?",
        (status, *error, _text(at), execution_id),
    )


def overdue(db: Connection, now: datetime) -> list[tuple[str, Status]]:
    """Return the executions that were not approved in time, or approved and not begun in time, and how they stand."""
    rows = db.execute(
        "SELECT execution_id, status FROM execution WHERE approval_expires_at <= ?"
        " AND (status = 'awaiting_approval' OR (status = 'pending' AND approved_by IS NOT NULL))",
        (_text(now),),
    ).fetchall()
    return [(row[0], Status(row[1])) for row in rows]


def note(db: Connection, execution_id: str, kind: str, data: Any, at: datetime) -> None:
    """Append an event; nothing ever changes one."""
    db.execute(
        "INSERT INTO event (at, execution_id, kind, data) VALUES (?, ?, ?, ?)",
        (_text(at), execution_id, kind, json.dumps(data, ensure_ascii=False)),
    )


def with_status(db: Connection, status: Status) -> list[Claim]:
    """Return the executions that stand there with the fences of their last attempts, the oldest first."""
    rows = db.execute(
        f"SELECT {COLUMNS}, fence FROM execution WHERE status = ? ORDER BY created_at",  # noqa: S608 - our own columns
        (status,),
    ).fetchall()
    return [_claim(row) for row in rows]


def last_ended(db: Connection, limit: int) -> list[Execution]:
    """Return the executions that ended last, the newest end first."""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM execution WHERE finished_at IS NOT NULL"  # noqa: S608 - our own columns
        " ORDER BY finished_at DESC, execution_id LIMIT ?",
        (limit,),
    ).fetchall()
    return [_execution(row) for row in rows]


def events(db: Connection, execution_id: str) -> list[tuple[int, str, Any]]:
    """Return (number, kind, data) of what happened to an execution, in order."""
    rows = db.execute(
        "SELECT seq, kind, data FROM event WHERE execution_id = ? ORDER BY seq", (execution_id,)
    ).fetchall()
    return [(seq, kind, json.loads(data)) for seq, kind, data in rows]


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="microseconds")


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def _claim(row: Sequence[Any]) -> Claim:
    return Claim(_execution(row[:-1]), row[-1])


def _execution(row: Sequence[Any]) -> Execution:
    stored = dict(zip(NAMES, row, strict=True))
    return Execution(
        **{
            **stored,
            **{name: _time(stored[name]) for name in TIMES},
            "payload": json.loads(stored["payload"]),
            "status": Status(stored["status"]),
            "refused": bool(stored["refused"]),
            "result": None if stored["result"] is None else json.loads(stored["result"]),
        }
    )
