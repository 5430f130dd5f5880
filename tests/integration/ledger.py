"""A ledger that is emptied after each test: a copy of the template costs ten to a hundred times as much."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from common.messages import Claim
from orchestrator.database.pool import Pool, open_pool
from orchestrator.leases.answers import Answer
from orchestrator.leases.service import LeaseService

TABLES = """
    SELECT c.relname FROM pg_class c
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'alembic_version'
     ORDER BY c.relname
"""
END_SESSIONS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> $1
"""
START_SEQUENCES = """
    SELECT setval(c.oid::regclass, 1, false) FROM pg_class c
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'S'
"""
POOL = "worker ledger"
REGISTER = """
    INSERT INTO agent (agent_id, agent_type, status, hostname, version, work_types, slots, current_tasks, resources,
                       started_at)
    SELECT DISTINCT ON (claim.agent_id)
           claim.agent_id, task.agent_type, 'online', 'host', '', '{}', 8, '{}', '{}', now()
      FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS claim (agent_id, task_id, position)
      JOIN task USING (task_id)
     ORDER BY claim.agent_id, claim.position
        ON CONFLICT DO NOTHING
"""


class RegisteredLeases(LeaseService):
    """Answers claims of agents that have registered in the pool of the first task that they ever claim.

    So do agents, which get tickets of their pool only.
    """

    async def claim(self, claims: Sequence[Claim]) -> list[Answer]:
        wanted = [(claim.agent_id, task.task_id) for claim in claims for task in claim.tasks]
        await register(self._pool, wanted)
        return await super().claim(claims)


async def register(pool: Pool, wanted: Sequence[tuple[UUID, UUID]]) -> None:
    """Have agents registered, each in the pool of its task: (agent_id, task_id)."""
    async with pool.acquire() as db:
        await db.execute(REGISTER, [agent_id for agent_id, _ in wanted], [task_id for _, task_id in wanted])


@dataclass
class Ledger:
    """A database of one worker, and connections to it that last as long as the worker."""

    url: str
    pool: Pool
    _admin: "asyncpg.Connection[asyncpg.Record]"
    _empty: str

    async def empty(self) -> None:
        """Bring every table and sequence back to what the migrations left, and end the sessions of the test."""
        await self._admin.fetchval(END_SESSIONS, POOL)
        await self._admin.execute(self._empty)


@asynccontextmanager
async def open_ledger(url: str) -> AsyncIterator[Ledger]:
    """Connect to a fresh copy of the template."""
    admin = await asyncpg.connect(url)
    named = f"{url}{'&' if '?' in url else '?'}application_name={POOL.replace(' ', '%20')}"
    try:
        async with open_pool(named, connections=5) as pool:
            yield Ledger(url, pool, admin, await _statements(admin))
    finally:
        await admin.close()


async def _statements(admin: "asyncpg.Connection[asyncpg.Record]") -> str:
    """Return the statements that empty the ledger, with the rows that the migrations wrote put back."""
    statements = ["SET LOCAL session_replication_role = replica", "SET LOCAL lock_timeout = '20s'"]
    for row in await admin.fetch(TABLES):
        table = row["relname"]
        statements.append(f'DELETE FROM "{table}"')
        rows = [json.loads(kept["r"]) for kept in await admin.fetch(f'SELECT to_jsonb(t) AS r FROM "{table}" t')]
        if rows:
            text = json.dumps(rows).replace("'", "''")
            statements.append(
                f'INSERT INTO "{table}" OVERRIDING SYSTEM VALUE '
                f"SELECT * FROM jsonb_populate_recordset(NULL::\"{table}\", '{text}')"
            )
    statements.append(START_SEQUENCES)
    return "BEGIN; " + "; ".join(statements) + "; COMMIT"
