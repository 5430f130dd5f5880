"""Whether an agent may be given work is decided once in SQL and once in Python, and both decide alike."""

from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID, uuid4

import pytest

from common.messages import AgentStatus
from orchestrator.database.pool import Connection, Pool
from orchestrator.identities.enrolment import EnrolmentService
from orchestrator.identities.service import IdentityService
from orchestrator.leases import waiting_queries as leases
from orchestrator.leases.model import Line
from orchestrator.registry import queries
from orchestrator.registry.model import MayWork
from orchestrator.registry.rules import may_work
from orchestrator.registry.service import RegistryService
from tests.factories import make_heartbeat
from tests.integration.ledger import register

MINUTE = timedelta(minutes=1)
REGISTER = """
    INSERT INTO agent (agent_id, agent_type, status, hostname, version, work_types, slots, current_tasks, resources,
                       started_at, draining, paused_until, tripped_until, clock_off_by, failures_in_row)
    VALUES ($1, 'infra', $2, 'host', '', '{echo}', 2, '{}', '{}', now(), $3, $4, $5, $6, 5)
"""
ENROL = """
    INSERT INTO principal (principal_id, kind, name, roles, agent_id, agent_type, created_by, disabled_at, disabled_by)
    VALUES ($1, 'agent', $1::uuid::text, '{agent}', $1, 'infra', 'test', $2, 'test')
"""


async def make_fleet(db: Connection, now: datetime) -> dict[UUID, tuple[object, ...]]:
    """Store an agent for every combination of facts that can decide; return the facts of each."""
    moments = (None, now, now + MINUTE)
    fleet: dict[UUID, tuple[object, ...]] = {}
    for registered, enrolled, disabled in product((True, False), repeat=3):
        if disabled and not enrolled:
            continue
        states = product(AgentStatus, (True, False), moments, moments, (None, -MINUTE)) if registered else [()]
        for state in states:
            agent_id = uuid4()
            fleet[agent_id] = (registered, enrolled, disabled, *state)
            if registered:
                await db.execute(REGISTER, agent_id, *state)
            if enrolled:
                await db.execute(ENROL, agent_id, now - MINUTE if disabled else None)
    return fleet


async def test_sql_and_python_decide_alike_for_every_combination_of_facts(pool: Pool) -> None:
    async with pool.acquire() as db, db.transaction():
        now = await queries.now(db)
        fleet = await make_fleet(db, now)
        standings = await queries.standings(db, list(fleet))
        found = {
            row["id"]: row["verdict"]
            for row in await db.fetch(
                "SELECT id, agent_may_work(id) AS verdict FROM unnest($1::uuid[]) AS given (id)", list(fleet)
            )
        }

    decided = {agent_id: may_work(standings.get(agent_id), now=now) for agent_id in fleet}
    assert {fleet[one]: found[one] for one in fleet} == {fleet[one]: decided[one] for one in fleet}
    assert set(found.values()) == set(MayWork), "every verdict came up"


@pytest.mark.parametrize("held", ["disabled", "paused", "draining", "tripped"])
async def test_an_agent_that_may_not_work_is_not_asked_for_its_credit(
    registry: RegistryService, pool: Pool, held: str
) -> None:
    enrolment = EnrolmentService(pool, failures_per_second=1)
    agent_id = (await enrolment.invite("web-1", "infra", lasts=MINUTE, by="admin")).agent_id
    other = uuid4()
    await registry.record([make_heartbeat(agent_id), make_heartbeat(other)])
    for one in (agent_id, other):
        await register(pool, one)
    soon = datetime.now(UTC) + MINUTE

    async with pool.acquire() as db:
        match held:
            case "disabled":
                identities = IdentityService(pool)
                [agent] = [one for one in await identities.everybody() if one.agent_id == agent_id]
                await identities.disable(agent.principal_id, by="admin")
            case "paused":
                await queries.pause(db, agent_id, until=soon, by="anna", note="")
            case "draining":
                await queries.drain(db, agent_id, by="anna", note="")
            case _:
                await queries.set_breaker(db, [(agent_id, 5, soon, None)])
        asking = await leases.askers(db, [Line("infra", "echo", "")], lease=MINUTE, offline_after=MINUTE, most=9)

    assert {one.agent_id for one in asking} == {other}


async def test_an_agent_whose_trip_is_over_has_room_for_one_task(registry: RegistryService, pool: Pool) -> None:
    agent_id = uuid4()
    await registry.record([make_heartbeat(agent_id, slots=8)])
    await register(pool, agent_id, room=8)

    async with pool.acquire() as db:
        await queries.set_breaker(db, [(agent_id, 5, datetime.now(UTC) - MINUTE, None)])
        [asker] = await leases.askers(db, [Line("infra", "echo", "")], lease=MINUTE, offline_after=MINUTE, most=9)

    assert asker.room == 1
