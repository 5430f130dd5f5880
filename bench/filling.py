"""Tasks by the million, as copies of one that was really dispatched, so that they are as the ledger makes them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import asyncpg

from bench.caller import Caller, new_task
from bench.chiffon_server import chiffon
from bench.counting import until
from bench.programs import Place

AT_ONCE = 50_000
PATIENCE = 1800.0

HAS_MODEL = "SELECT count(*) FROM task WHERE status = 'completed'"
# What the table numbers by itself is left to it.
COLUMNS = """
    SELECT quote_ident(attname)
      FROM pg_attribute
     WHERE attrelid = 'task'::regclass AND attnum > 0 AND NOT attisdropped AND attidentity = '' AND attgenerated = ''
     ORDER BY attnum
"""
COPY = """
    INSERT INTO task ({columns})
    SELECT {values}
      FROM (SELECT * FROM task WHERE status = 'completed' LIMIT 1) AS model
     CROSS JOIN generate_series(1, $1::int)
"""
# What a copy has that its model has not: ids of its own, and of one that waits nothing that a lease or an end left.
OWN = {"task_id": "gen_random_uuid()", "request_id": "gen_random_uuid()", "trace_id": "gen_random_uuid()"}
AS_FINISHED = OWN
AS_PENDING = {
    **OWN,
    **dict.fromkeys(("attempt", "unstarted"), "0"),
    **dict.fromkeys(("agent_id", "claim_id", "started_at", "finished_at", "exit_code", "duration_ms"), "NULL"),
    **dict.fromkeys(("output", "progress"), "''"),
    "status": "'pending'",
}
COUNT_PENDING = "SELECT count(*) FROM task WHERE status = 'pending'"
# As a lease leaves a task; the agents need not be there.
RUN = """
    WITH leased AS (
        UPDATE task
           SET status = 'running', agent_id = new.agent_id, claim_id = new.agent_id, lease_expires_at = now() + $3,
               attempt = 1, started_at = now(), updated_at = now()
          FROM unnest($1::uuid[], $2::uuid[]) AS new (task_id, agent_id)
         WHERE task.task_id = new.task_id
     RETURNING task.task_id, task.agent_id
    )
    SELECT FROM leased
"""
SOME_PENDING = "SELECT task_id FROM task WHERE status = 'pending' LIMIT $1"


class Ledger:
    """The ledger of one place, which is filled while nobody serves it."""

    def __init__(self, db: "asyncpg.Connection[Any]") -> None:
        self._db = db

    async def wait(self, depth: int) -> None:
        """Have exactly so many tasks wait, unless more do."""
        missing = depth - await self._db.fetchval(COUNT_PENDING)
        await self._copy(missing, AS_PENDING)
        await self._settle()

    async def finish(self, count: int) -> None:
        """Add so many tasks that have ended."""
        await self._copy(count, AS_FINISHED)
        await self._settle()

    async def run(self, agents: list[str], *, lease: timedelta) -> list[str]:
        """Have each of these agents run one task; return the tasks, each in its first attempt."""
        await self._copy(len(agents), AS_PENDING)
        tasks = [str(row["task_id"]) for row in await self._db.fetch(SOME_PENDING, len(agents))]
        await self._db.execute(RUN, tasks, agents, lease, timeout=PATIENCE)
        return tasks

    async def _copy(self, count: int, differences: Mapping[str, str]) -> None:
        columns = [row["quote_ident"] for row in await self._db.fetch(COLUMNS)]
        values = [differences.get(column, f"model.{column}") for column in columns]
        statement = COPY.format(columns=", ".join(columns), values=", ".join(values))
        for begin in range(0, count, AT_ONCE):
            await self._db.execute(statement, min(AT_ONCE, count - begin), timeout=PATIENCE)

    async def _settle(self) -> None:
        await self._db.execute("VACUUM ANALYZE task", timeout=PATIENCE)
        await self._db.execute("CHECKPOINT", timeout=PATIENCE)


async def begin_ledger(place: Place, db: "asyncpg.Connection[Any]") -> Ledger:
    """Make a ledger with one task that has ended, which is the model of all others."""
    async with chiffon(place) as server:
        caller = Caller(server.url, server.token)
        await caller.open()
        await caller.post("/api/v1/dispatch", new_task())
        await caller.close()
        await until(db, HAS_MODEL, 1)
    return Ledger(db)
