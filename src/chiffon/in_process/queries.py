"""All SQL of the store: SQLite, one connection, each function one transaction of its caller."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from chiffon.in_process.model import Execution
from common.lifecycle import Status

SCHEMA = """
    CREATE TABLE IF NOT EXISTS store (id TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS execution (
        execution_id  TEXT PRIMARY KEY,
        command       TEXT NOT NULL,
        payload       TEXT NOT NULL,
        approval_id   TEXT,
        digest        TEXT NOT NULL,
        status        TEXT NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
        attempt       INTEGER NOT NULL DEFAULT 0,
        fence         INTEGER NOT NULL DEFAULT 0,
        max_attempts  INTEGER NOT NULL CHECK (max_attempts IN (1, 2)),
        result        TEXT,
        error_message TEXT,
        error_code    INTEGER,
        created_at    TEXT NOT NULL,
        started_at    TEXT,
        finished_at   TEXT
    );
    CREATE INDEX IF NOT EXISTS execution_open ON execution (status, created_at) WHERE status IN ('pending', 'running');
    CREATE INDEX IF NOT EXISTS execution_ended ON execution (finished_at) WHERE finished_at IS NOT NULL;
    CREATE TABLE IF NOT EXISTS event (
        seq          INTEGER PRIMARY KEY AUTOINCREMENT,
        at           TEXT NOT NULL,
        execution_id TEXT NOT NULL,
        kind         TEXT NOT NULL,
        data         TEXT NOT NULL
    );
"""

COLUMNS = """execution_id, command, payload, approval_id, status, attempt, max_attempts, result, error_message,
             error_code, created_at, started_at, finished_at"""


def prepare(db: sqlite3.Connection, store_id: str) -> str:
    """Create what is missing; return the id of the store, which it keeps."""
    db.executescript(SCHEMA)
    row = db.execute("SELECT id FROM store").fetchone()
    if row is None:
        db.execute("INSERT INTO store (id) VALUES (?)", (store_id,))
        return store_id
    found: str = row[0]
    return found


def insert(db: sqlite3.Connection, execution: Execution, digest: str) -> bool:
    """Store an execution; False when its id is taken."""
    done = db.execute(
        "INSERT INTO execution (execution_id, command, payload, approval_id, digest, status, max_attempts, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            execution.execution_id,
            execution.command,
            json.dumps(execution.payload, ensure_ascii=False),
            execution.approval_id,
            digest,
            execution.status,
            execution.max_attempts,
            _text(execution.created_at),
        ),
    )
    return done.rowcount == 1


def find(db: sqlite3.Connection, execution_id: str) -> tuple[Execution, str, int] | None:
    """Return an execution with its digest and its fence; None when there is none."""
    row = db.execute(
        f"SELECT {COLUMNS}, digest, fence FROM execution WHERE execution_id = ?",  # noqa: S608 - our own columns
        (execution_id,),
    ).fetchone()
    return None if row is None else (_execution(row[:-2]), row[-2], row[-1])


def begin(db: sqlite3.Connection, execution_id: str, at: datetime) -> bool:
    """Start an attempt; False when the execution does not wait."""
    done = db.execute(
        "UPDATE execution SET status = 'running', attempt = attempt + 1, fence = fence + 1, started_at = ?,"
        " error_message = NULL, error_code = NULL WHERE execution_id = ? AND status = 'pending'",
        (_text(at), execution_id),
    )
    return done.rowcount == 1


def finish(
    db: sqlite3.Connection,
    execution_id: str,
    fence: int,
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
        (status, result, *error, None if at is None else _text(at), execution_id, fence),
    )
    return done.rowcount == 1


def note(db: sqlite3.Connection, execution_id: str, kind: str, data: Any, at: datetime) -> None:
    """Append an event; nothing ever changes one."""
    db.execute(
        "INSERT INTO event (at, execution_id, kind, data) VALUES (?, ?, ?, ?)",
        (_text(at), execution_id, kind, json.dumps(data, ensure_ascii=False)),
    )


def with_status(db: sqlite3.Connection, status: Status) -> list[tuple[Execution, int]]:
    """Return the executions that stand there with their fences, the oldest first."""
    rows = db.execute(
        f"SELECT {COLUMNS}, fence FROM execution WHERE status = ? ORDER BY created_at",  # noqa: S608 - our own columns
        (status,),
    ).fetchall()
    return [(_execution(row[:-1]), row[-1]) for row in rows]


def last_ended(db: sqlite3.Connection, limit: int) -> list[Execution]:
    """Return the executions that ended last, the newest end first."""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM execution WHERE finished_at IS NOT NULL"  # noqa: S608 - our own columns
        " ORDER BY finished_at DESC, execution_id LIMIT ?",
        (limit,),
    ).fetchall()
    return [_execution(row) for row in rows]


def events(db: sqlite3.Connection, execution_id: str) -> list[tuple[int, str, Any]]:
    """Return (number, kind, data) of what happened to an execution, in order."""
    rows = db.execute(
        "SELECT seq, kind, data FROM event WHERE execution_id = ? ORDER BY seq", (execution_id,)
    ).fetchall()
    return [(seq, kind, json.loads(data)) for seq, kind, data in rows]


def _text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds")


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def _execution(row: Sequence[Any]) -> Execution:
    created = _time(row[10])
    assert created is not None
    return Execution(
        execution_id=row[0],
        command=row[1],
        payload=json.loads(row[2]),
        approval_id=row[3],
        status=Status(row[4]),
        attempt=row[5],
        max_attempts=row[6],
        result=None if row[7] is None else json.loads(row[7]),
        error_message=row[8],
        error_code=row[9],
        created_at=created,
        started_at=_time(row[11]),
        finished_at=_time(row[12]),
    )
