"""What cannot be written into the audit log does not happen."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from common.loop import Wake
from common.rest.identities import PrincipalKind, Role
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool
from orchestrator.identities.service import IdentityService
from orchestrator.leases.service import LeaseService
from orchestrator.output.service import OutputService
from orchestrator.registry.fleet import FleetService
from orchestrator.registry.model import Room
from orchestrator.registry.queries import ROOM
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from tests.factories import make_chunk, make_heartbeat, make_new_task, make_result, make_status
from tests.integration.audit.conftest import AGEING, LEASE
from tests.integration.ledger import lease_to, register
from tests.integration.orchestrator.on_credit import Orchestrator

FULL = """
    CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE disk_full USING MESSAGE = 'no room for events'; END $$;
    CREATE TRIGGER no_room BEFORE INSERT ON event FOR EACH STATEMENT EXECUTE FUNCTION no_room();
"""

TABLES = ("task", "attempt", "outbox", "output_chunk", "agent", "principal", "token", "event_head")


class Running:
    """A task that runs, one that waits, an agent, a person; and everything that can be done to them."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.tasks = TaskService(pool, ageing=AGEING)
        self.leases = LeaseService(pool, lease=LEASE, policy=RetryPolicy())
        self.output = OutputService(pool)
        self.registry = RegistryService(pool, offline_after=timedelta(seconds=30))
        self.fleet = FleetService(pool, Wake(), offline_after=timedelta(seconds=30))
        self.identities = IdentityService(pool)
        self.agent_id, self.person_id, self.token_id = uuid4(), uuid4(), uuid4()
        self.running, self.waiting = make_new_task(), make_new_task()

    async def begin(self) -> None:
        await self.registry.record([make_heartbeat(self.agent_id)])
        await self.tasks.dispatch([self.running, self.waiting], by="somebody")
        await lease_to(self.pool, self.running.task_id, agent_id=self.agent_id)
        await register(self.pool, self.agent_id)
        self.giving = Orchestrator(self.pool).giving
        person = await self.identities.create(PrincipalKind.PERSON, "alice", {Role.VIEWER}, by="root")
        self.person_id = person.principal_id
        self.token_id = (await self.identities.issue(self.person_id, by="root")).token.token_id

    async def rows(self) -> dict[str, list[str]]:
        async with self.pool.acquire() as db:
            return {
                table: [row[0] for row in await db.fetch(f'SELECT t::text FROM "{table}" t ORDER BY 1')]
                for table in TABLES
            }


async def _output(at: Running) -> None:
    await at.output.store([make_status(at.running.task_id, at.agent_id, make_chunk(0, "hello", offset=0))])


async def _dispatch(at: Running) -> None:
    one = Orchestrator(at.pool)
    async with at.pool.acquire() as db:
        [room] = await db.fetch(f"SELECT {ROOM} AS room, credit_number, granted FROM agent")
    one.credits.offers(at.agent_id, "infra", [])
    one.credits.learn([Room(at.agent_id, *room.values())])
    await one.dispatch(make_new_task())


ACTIONS: dict[str, Callable[[Running], Awaitable[object]]] = {
    "dispatch": lambda at: at.tasks.dispatch([make_new_task()], by="alice"),
    "cancel": lambda at: at.tasks.cancel(at.running.task_id, by="alice"),
    "cancel a trace": lambda at: at.tasks.cancel_trace(at.waiting.trace_id, by="alice"),
    "lease": lambda at: at.giving.by_credit(),
    "dispatch to credit": _dispatch,
    "result": lambda at: at.leases.accept([make_result(at.running.task_id, at.agent_id)]),
    "output": _output,
    "register": lambda at: at.registry.record([make_heartbeat()]),
    "pause": lambda at: at.fleet.pause(at.agent_id, until=timedelta(minutes=5), note="", by="alice"),
    "drain": lambda at: at.fleet.drain(at.agent_id, note="", by="alice"),
    "resume": lambda at: at.fleet.resume(at.agent_id, by="alice"),
    "create an identity": lambda at: at.identities.create(PrincipalKind.PERSON, "bob", {Role.VIEWER}, by="alice"),
    "disable an identity": lambda at: at.identities.disable(at.person_id, by="alice"),
    "issue a token": lambda at: at.identities.issue(at.person_id, by="alice"),
    "revoke a token": lambda at: at.identities.revoke(at.token_id, by="alice"),
}


@pytest.mark.own_ledger
@pytest.mark.parametrize("action", list(ACTIONS.values()), ids=list(ACTIONS))
async def test_an_action_whose_event_cannot_be_written_does_not_happen(
    pool: Pool, action: Callable[[Running], Awaitable[object]]
) -> None:
    at = Running(pool)
    await at.begin()
    async with pool.acquire() as db:
        await db.execute(FULL)
    before = await at.rows()

    with pytest.raises(asyncpg.DiskFullError, match="no room for events"):
        await action(at)

    assert await at.rows() == before
    async with pool.acquire() as db:
        await db.execute("DROP TRIGGER no_room ON event")
    await action(at)
    assert await at.rows() != before
