"""The tables of the store, and how those of an earlier version become them."""

import json
import sqlite3

from chiffon.in_process.model import digest
from common.errors import StartupRefused

VERSION = 1

TABLES = (
    """
    CREATE TABLE IF NOT EXISTS store (id TEXT NOT NULL)
    """,
    """
    CREATE TABLE execution (
        execution_id        TEXT PRIMARY KEY,
        command             TEXT NOT NULL,
        payload             TEXT NOT NULL,
        digest              TEXT NOT NULL,
        approval_id         TEXT,
        requested_by        TEXT,
        status              TEXT NOT NULL CHECK (status IN
                                ('awaiting_approval', 'pending', 'running', 'completed', 'failed', 'cancelled')),
        max_attempts        INTEGER NOT NULL CHECK (max_attempts IN (1, 2)),
        created_at          TEXT NOT NULL,
        approval_expires_at TEXT,
        approved_by         TEXT,
        refused             INTEGER NOT NULL DEFAULT 0 CHECK (refused = 0 OR status = 'failed'),
        attempt             INTEGER NOT NULL DEFAULT 0,
        fence               INTEGER NOT NULL DEFAULT 0,
        result              TEXT,
        error_message       TEXT,
        error_code          INTEGER,
        started_at          TEXT,
        finished_at         TEXT,
        CHECK (status <> 'awaiting_approval' OR approval_expires_at IS NOT NULL)
    )
    """,
    """
    CREATE INDEX execution_open ON execution (status, created_at)
     WHERE status IN ('awaiting_approval', 'pending', 'running')
    """,
    """
    CREATE INDEX execution_ended ON execution (finished_at) WHERE finished_at IS NOT NULL
    """,
    """
    CREATE TABLE IF NOT EXISTS event (
        seq          INTEGER PRIMARY KEY AUTOINCREMENT,
        at           TEXT NOT NULL,
        execution_id TEXT NOT NULL,
        kind         TEXT NOT NULL,
        data         TEXT NOT NULL
    )
    """,
)

# Version 0 had no approvals, and its digest covered approval_id, too. The other tables are as they were.
SET_ASIDE = (
    "DROP INDEX execution_open",
    "DROP INDEX execution_ended",
    "ALTER TABLE execution RENAME TO execution_0",
)
TAKE_OVER = (
    """
    INSERT INTO execution (execution_id, command, payload, digest, approval_id, status, max_attempts, created_at,
                           attempt, fence, result, error_message, error_code, started_at, finished_at)
    SELECT execution_id, command, payload, digest, approval_id, status, max_attempts, created_at,
           attempt, fence, result, error_message, error_code, started_at, finished_at
      FROM execution_0
    """,
    "DROP TABLE execution_0",
)


def prepare(db: sqlite3.Connection, store_id: str) -> str:
    """Bring the tables to this version, in one transaction; return the id of the store, which it keeps.

    Raises `StartupRefused` for a store of a later version.
    """
    db.execute("BEGIN IMMEDIATE")
    [version] = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise StartupRefused(f"The executions were written by a later version of Chiffon (format {version}).")
    if version < VERSION:
        _upgrade(db)
    row = db.execute("SELECT id FROM store").fetchone()
    if row is None:
        db.execute("INSERT INTO store (id) VALUES (?)", (store_id,))
    return store_id if row is None else str(row[0])


def _upgrade(db: sqlite3.Connection) -> None:
    is_used = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'execution'").fetchone() is not None
    for statement in (*(SET_ASIDE if is_used else ()), *TABLES, *(TAKE_OVER if is_used else ())):
        db.execute(statement)
    for execution_id, command, payload in db.execute("SELECT execution_id, command, payload FROM execution").fetchall():
        values = (digest(command, json.loads(payload)), execution_id)
        db.execute("UPDATE execution SET digest = ? WHERE execution_id = ?", values)
    db.execute(f"PRAGMA user_version = {VERSION}")
