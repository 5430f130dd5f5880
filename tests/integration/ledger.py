"""A ledger that is emptied after each test: a copy of the template costs ten to a hundred times as much."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg

from orchestrator.database.pool import Pool, open_pool
from orchestrator.leases import events as told
from orchestrator.leases import queries
from orchestrator.leases.model import Asker, Leased
from orchestrator.tasks import queries as tasks

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
                       started_at, boot_id, credit_number, credit_limit)
    VALUES ($1, $2, 'online', 'host', '', $3, 8, '{}', '{}', now(), $4, 1, $5)
        ON CONFLICT (agent_id) DO UPDATE
       SET credit_limit = agent.granted + excluded.credit_limit, boot_id = coalesce(agent.boot_id, excluded.boot_id)
 RETURNING boot_id
"""


async def register(
    pool: Pool, agent_id: UUID, agent_type: str = "infra", *, room: int = 8, work_types: Sequence[str] = ()
) -> UUID:
    """Have an agent of a pool registered that takes `room` more tasks; return its session."""
    async with pool.acquire() as db:
        session: UUID = await db.fetchval(REGISTER, agent_id, agent_type, list(work_types), uuid4(), room)
    return session


async def lease_to(
    pool: Pool, *task_ids: UUID, agent_id: UUID | None = None, lease: timedelta = timedelta(seconds=30)
) -> list[Leased]:
    """Lease tasks that wait to an agent, which registers in the pool of the first; return those that it got."""
    agent_id = agent_id or uuid4()
    async with pool.acquire() as db:
        found = await tasks.get(db, task_ids)
    wanted = [found[task_id] for task_id in task_ids]
    session = await register(pool, agent_id, wanted[0].agent_type)
    asker = Asker(agent_id, wanted[0].agent_type, session, len(wanted), lease)
    claims = [told.claimed(task, agent_id, task.attempt + 1) for task in wanted]
    async with pool.acquire() as db:
        got, rooms = await queries.lease(db, [(task, asker) for task in wanted], claims, trial=timedelta(minutes=1))
    of_agent = {room.agent_id: room for room in rooms}
    return [
        Leased(
            task,
            agent_id,
            session,
            task.attempt + 1,
            lease,
            of_agent[agent_id].credit,
            of_agent[agent_id].granted,
        )
        for task in wanted
        if task.task_id in got
    ]


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
