"""The ledger as it stands when everything is over, read past Chiffon."""

import json
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from orchestrator.audit.verify import verify
from orchestrator.database.pool import prepare

TASKS = "SELECT * FROM task"
ATTEMPTS = "SELECT * FROM attempt ORDER BY task_id, number"
EVENTS = "SELECT seq, at, kind, task_id, agent_id, attempt, actor, data FROM event ORDER BY seq"
OUTPUT = """
    SELECT task_id, attempt, stream, byte_offset, size FROM output_chunk
     ORDER BY task_id, attempt, stream, byte_offset
"""
DEAD_LETTERS = "SELECT message_id FROM dead_letter WHERE kind = 'message'"
UNFINISHED = "SELECT count(*) FROM task WHERE status NOT IN ('completed', 'failed', 'cancelled')"
SAFETY = (
    "SELECT name, setting FROM pg_settings"
    " WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'server_version', 'wal_sync_method')"
)

JSON_COLUMNS = {"data", "output_bytes", "parameters", "hints"}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ledger:
    """All rows, with ids as text and times as seconds of the wall clock."""

    tasks: dict[str, Row]
    attempts: list[Row]
    events: list[Row]
    output: list[Row]
    dead_letters: list[str] = field(default_factory=list)
    flaw: str | None = None
    """The first thing that is wrong with the audit log's chain."""

    def history(self, task_id: str) -> list[Row]:
        return [event for event in self.events if event["task_id"] == task_id]

    def attempts_of(self, task_id: str) -> list[Row]:
        return [attempt for attempt in self.attempts if attempt["task_id"] == task_id]


async def read_ledger(database_url: str) -> Ledger:
    """Return everything."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            tasks, attempts, events, output = [
                [_plain(row) for row in await connection.fetch(query)] for query in (TASKS, ATTEMPTS, EVENTS, OUTPUT)
            ]
            letters = [row["message_id"] for row in await connection.fetch(DEAD_LETTERS)]
        await prepare(connection)
        finding = (await verify(connection)).finding
    finally:
        await connection.close()
    flaw = None if finding is None else f"{finding.flaw} at event {finding.seq}: {finding.reason}"
    return Ledger({task["task_id"]: task for task in tasks}, attempts, events, output, letters, flaw)


async def unfinished(database_url: str) -> int:
    """Return how many tasks are not final."""
    connection = await asyncpg.connect(database_url, timeout=5)
    try:
        count: int = await connection.fetchval(UNFINISHED)
        return count
    finally:
        await connection.close()


async def server_settings(database_url: str) -> dict[str, str]:
    """Return what PostgreSQL says about how safely it stores."""
    connection = await asyncpg.connect(database_url)
    try:
        return {row["name"]: row["setting"] for row in await connection.fetch(SAFETY)}
    finally:
        await connection.close()


def _plain(row: asyncpg.Record) -> Row:
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if name in JSON_COLUMNS and value is not None:
        return json.loads(value)
    if hasattr(value, "timestamp"):
        return value.timestamp()
    return str(value) if type(value).__name__ == "UUID" else value
