"""The ledger gives work to agents of its pool only, and takes the word of the agent that holds an attempt only."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from common.lifecycle import Status
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.identities.enrolment import EnrolmentService
from orchestrator.leases import queries
from orchestrator.leases.model import Asker
from orchestrator.leases.service import LeaseService
from orchestrator.output.service import OutputService
from orchestrator.registry import queries as registry_queries
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from tests.factories import (
    make_chunk,
    make_heartbeat,
    make_new_task,
    make_renewal,
    make_result,
    make_status,
)
from tests.integration.ledger import lease_to, register
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import events_of, kinds_of
from tests.integration.orchestrator.on_credit import gets


async def enrolled(pool: Pool, agent_type: str, **labels: Any) -> UUID:
    enrolment = EnrolmentService(pool, failures_per_second=1)
    invited = await enrolment.invite(f"agent-{uuid4()}", agent_type, labels=labels, lasts=LEASE, by="admin")
    return invited.agent_id


async def dispatched(tasks: TaskService, **values: Any) -> UUID:
    task = make_new_task(**values)
    await tasks.dispatch([task], by="caller")
    return task.task_id


async def running(tasks: TaskService, registry: RegistryService, pool: Pool) -> tuple[UUID, UUID]:
    """Have a task leased to an agent that registered; return task and agent."""
    task_id, agent_id = await dispatched(tasks), uuid4()
    await registry.record([make_heartbeat(agent_id)])
    [_] = await lease_to(pool, task_id, agent_id=agent_id)
    return task_id, agent_id


async def test_an_agent_gets_no_task_of_another_pool(tasks: TaskService, registry: RegistryService, pool: Pool) -> None:
    task_id, other = await dispatched(tasks), uuid4()
    await registry.record([make_heartbeat(other, agent_type="desktop")])

    assert await gets(pool, other, room=8) == []
    assert await lease_to(pool, task_id, agent_id=other) == []
    assert (await tasks.get(task_id)).status is Status.PENDING


async def test_an_agent_that_never_registered_gets_no_work(tasks: TaskService, pool: Pool) -> None:
    task_id = await dispatched(tasks)

    for agent_id in (uuid4(), await enrolled(pool, "infra")):
        assert await gets(pool, agent_id, room=8) == []
        assert await leased_by_the_statement(tasks, pool, task_id, agent_id) == set()
    assert (await tasks.get(task_id)).status is Status.PENDING


@pytest.mark.parametrize("over_http", [False, True], ids=["by credit", "over HTTP"])
async def test_the_statement_leases_nothing_to_an_agent_of_another_pool_whoever_chose_it(
    tasks: TaskService, pool: Pool, over_http: bool
) -> None:
    task_id, agent_id = await dispatched(tasks), uuid4()
    session = await register(pool, agent_id, "desktop")
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET worker_id = $1", "worker" if over_http else None)

    assert await leased_by_the_statement(tasks, pool, task_id, agent_id, session) == set()

    assert (await tasks.get(task_id)).status is Status.PENDING


async def leased_by_the_statement(
    tasks: TaskService, pool: Pool, task_id: UUID, agent_id: UUID, session: UUID | None = None
) -> set[UUID]:
    """Run the statement that leases without the choice that comes before it."""
    asker = Asker(agent_id, "infra", session or uuid4(), 1, LEASE)
    async with pool.acquire() as db:
        leased, _ = await queries.lease(db, [(await tasks.get(task_id), asker)], [], trial=LEASE)
    return leased


async def test_a_heartbeat_that_names_another_pool_changes_nothing(registry: RegistryService, pool: Pool) -> None:
    enrolled_id, other = await enrolled(pool, "desktop"), uuid4()
    await registry.record([make_heartbeat(other, agent_type="desktop")])

    await registry.record([make_heartbeat(one, agent_type="infra", hostname="lie") for one in (enrolled_id, other)])

    known = await registry.list_agents(agent_type=None, status=None)
    assert [(agent.agent_id, agent.agent_type, agent.hostname) for agent in known] == [(other, "desktop", "host-1")]


async def test_of_two_first_registrations_at_once_one_fixes_the_pool(registry: RegistryService) -> None:
    agent_id = uuid4()

    await asyncio.gather(
        *(registry.record([make_heartbeat(agent_id, agent_type=pool, hostname=pool)]) for pool in ("infra", "desktop"))
    )

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert agent.agent_type == agent.hostname


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE agent SET agent_type = 'infra' WHERE agent_id = $1",
        "UPDATE principal SET agent_type = 'infra' WHERE agent_id = $1",
        "UPDATE principal SET labels = '{}' WHERE agent_id = $1",
        "UPDATE agent SET agent_id = gen_random_uuid(), agent_type = 'infra' WHERE agent_id = $1",
    ],
)
async def test_the_ledger_refuses_to_change_the_pool_of_an_agent_or_what_was_pinned(
    registry: RegistryService, pool: Pool, change: str
) -> None:
    agent_id = await enrolled(pool, "desktop", secrets=["db"])
    await registry.record([make_heartbeat(agent_id, agent_type="desktop")])

    async with pool.acquire() as db:
        with pytest.raises(asyncpg.RestrictViolationError):
            await db.execute(change, agent_id)


async def test_the_ledger_takes_no_agent_into_another_pool_than_that_of_its_identity(pool: Pool) -> None:
    agent_id = await enrolled(pool, "desktop")

    async with pool.acquire() as db:
        with pytest.raises(asyncpg.RestrictViolationError):
            await registry_queries.record(db, [make_heartbeat(agent_id, agent_type="infra")], {}, skew=LEASE)


async def test_an_agent_without_an_identity_is_believed_what_its_host_keeps_work_from(
    registry: RegistryService, pool: Pool
) -> None:
    said = {"enforces": ["network_off"], "secrets": ["db"], "zone": "eu"}
    plain_id, enrolled_id = uuid4(), await enrolled(pool, "infra")

    await registry.record([make_heartbeat(one, labels=said) for one in (plain_id, enrolled_id)])

    labels = {one.agent_id: one.labels for one in await registry.list_agents(agent_type=None, status=None)}
    assert labels == {plain_id: said, enrolled_id: {"zone": "eu"}}


@pytest.mark.parametrize("wrong", ["agent", "attempt"])
async def test_progress_and_output_count_only_of_the_agent_that_holds_the_attempt(
    tasks: TaskService, registry: RegistryService, output: OutputService, pool: Pool, wrong: str
) -> None:
    task_id, agent_id = await running(tasks, registry, pool)
    values = {"attempt": 2} if wrong == "attempt" else {}
    sender = uuid4() if wrong == "agent" else agent_id
    forged = make_status(task_id, sender, make_chunk(0, "forged", offset=0), progress="forged", **values)
    genuine = make_status(task_id, agent_id, make_chunk(0, "genuine", offset=0), progress="half")

    await output.store([forged])
    assert await kinds_of(pool, task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]
    await output.store([genuine, forged])

    task = await tasks.get(task_id)
    assert (task.progress, await output.tail(task)) == ("half", "genuine")
    told = [event for event in await events_of(pool) if event.task_id == task_id][2:]
    assert {(event.kind, event.agent_id, event.attempt) for event in told} == {
        (Kind.TASK_OUTPUT, agent_id, 1),
        (Kind.TASK_PROGRESS, agent_id, 1),
    }


async def test_neither_renewals_nor_results_nor_hand_backs_of_a_stranger_count(
    tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, registry, pool)
    stranger = uuid4()
    await registry.record([make_heartbeat(stranger)])

    [(_, renewed)] = await leases.renew([make_renewal(task_id, stranger)])
    await leases.accept([make_result(task_id, stranger), make_result(task_id, stranger, started=False)])
    await leases.accept([make_result(task_id, agent_id, attempt=2)])

    assert renewed.kept == []
    task = await tasks.get(task_id)
    assert (task.status, task.agent_id, task.attempt) == (Status.RUNNING, agent_id, 1)
