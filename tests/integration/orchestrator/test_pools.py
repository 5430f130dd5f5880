"""The ledger gives work to agents of its pool only, and takes the word of the agent that holds an attempt only."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from orchestrator.dispatch.standing import StandingClaims
from orchestrator.leases.plain import queries as plain

from common.lifecycle import Status
from common.messages import ClaimedTask
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.identities.enrolment import EnrolmentService
from orchestrator.leases import queries as lease_queries
from orchestrator.leases.rules import OTHER_POOL
from orchestrator.leases.service import LeaseService
from orchestrator.output.service import OutputService
from orchestrator.registry import queries
from orchestrator.registry.rules import UNREGISTERED
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from tests.factories import (
    make_chunk,
    make_claim,
    make_heartbeat,
    make_new_task,
    make_renewal,
    make_result,
    make_status,
)
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import events_of, kinds_of

DUE_AT = "SELECT due_at FROM outbox WHERE kind = 'ticket' AND task_id = $1"
PUBLISH = "UPDATE outbox SET published_at = now(), due_at = now() + interval '1 hour' WHERE task_id = $1"


@pytest.fixture
def leases(pool: Pool) -> LeaseService:
    """Answers claims of agents as they are: these tests register them."""
    return LeaseService(pool, lease=LEASE, policy=RetryPolicy(base=timedelta(0)))


async def enrolled(pool: Pool, agent_type: str, **labels: Any) -> UUID:
    enrolment = EnrolmentService(pool, failures_per_second=1)
    invited = await enrolment.invite(f"agent-{uuid4()}", agent_type, labels=labels, lasts=LEASE, by="admin")
    return invited.agent_id


async def dispatched(tasks: TaskService, **values: Any) -> UUID:
    task = make_new_task(**values)
    await tasks.dispatch([task], by="caller")
    return task.task_id


async def running(tasks: TaskService, leases: LeaseService, registry: RegistryService) -> tuple[UUID, UUID]:
    """Have a task leased to an agent that registered; return task and agent."""
    task_id, agent_id = await dispatched(tasks), uuid4()
    await registry.record([make_heartbeat(agent_id)])
    [answer] = await leases.claim([make_claim(task_id, agent_id=agent_id)])
    assert answer.grant is not None
    return task_id, agent_id


async def test_a_claim_with_the_ticket_of_another_pool_is_refused(
    tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool
) -> None:
    task_id, enrolled_id, other = await dispatched(tasks), await enrolled(pool, "desktop"), uuid4()
    await registry.record([make_heartbeat(other, agent_type="desktop")])

    for agent_id in (enrolled_id, other):
        [answer] = await leases.claim([make_claim(task_id, agent_id=agent_id)])
        assert answer.grant is None
        assert answer.refusal is not None
        assert answer.refusal.tasks[0].reason == OTHER_POOL
    assert (await tasks.get(task_id)).status is Status.PENDING


async def test_an_agent_that_never_registered_gets_no_work(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id = await dispatched(tasks)

    for agent_id in (uuid4(), await enrolled(pool, "infra")):
        [answer] = await leases.claim([make_claim(task_id, agent_id=agent_id)])
        assert answer.refusal is not None
        assert answer.refusal.tasks[0].reason == UNREGISTERED
    assert (await tasks.get(task_id)).status is Status.PENDING


@pytest.mark.parametrize("registered", [False, True])
async def test_no_statement_leases_to_an_agent_of_another_pool_whoever_judged_it(
    tasks: TaskService, registry: RegistryService, pool: Pool, registered: bool
) -> None:
    """The guard of the two statements that lease, without the judgement that comes before them."""
    task_id, agent_id = await dispatched(tasks), uuid4()
    if registered:
        await registry.record([make_heartbeat(agent_id, agent_type="desktop")])

    async with pool.acquire() as db:
        ticket = ClaimedTask(task_id=task_id, fence=0, claim_id=uuid4())
        leased, _ = await plain.lease(db, [(agent_id, ticket)], [], lasts=LEASE)
        claimed = await lease_queries.claim(db, [(task_id, agent_id, uuid4(), LEASE)])

    assert (leased, claimed) == (set(), {})
    assert (await tasks.get(task_id)).status is Status.PENDING


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
            await queries.record(db, [make_heartbeat(agent_id, agent_type="infra")], {}, skew=LEASE)


async def test_an_agent_without_an_identity_is_believed_what_its_host_keeps_work_from(
    registry: RegistryService, pool: Pool
) -> None:
    said = {"enforces": ["network_off"], "secrets": ["db"], "zone": "eu"}
    plain_id, enrolled_id = uuid4(), await enrolled(pool, "infra")

    await registry.record([make_heartbeat(one, labels=said) for one in (plain_id, enrolled_id)])

    labels = {one.agent_id: one.labels for one in await registry.list_agents(agent_type=None, status=None)}
    assert labels == {plain_id: said, enrolled_id: {"zone": "eu"}}


async def test_an_agent_returns_tickets_of_its_own_pool_only(
    tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool
) -> None:
    task_id, own, stranger = await dispatched(tasks), uuid4(), uuid4()
    await registry.record([make_heartbeat(own), make_heartbeat(stranger, agent_type="desktop")])
    async with pool.acquire() as db:
        await db.execute(PUBLISH, task_id)
        before = await db.fetchval(DUE_AT, task_id)

        await leases.return_tickets([(task_id, stranger), (task_id, uuid4())])
        assert await db.fetchval(DUE_AT, task_id) == before
        await leases.return_tickets([(task_id, own)])
        assert await db.fetchval(DUE_AT, task_id) < before


@pytest.mark.parametrize("wrong", ["agent", "attempt", "fence"])
async def test_progress_and_output_count_only_of_the_agent_that_holds_the_attempt(
    tasks: TaskService,
    leases: LeaseService,
    registry: RegistryService,
    output: OutputService,
    pool: Pool,
    wrong: str,
) -> None:
    task_id, agent_id = await running(tasks, leases, registry)
    values = {"attempt": 2} if wrong == "attempt" else {"fence": 2} if wrong == "fence" else {}
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
    tasks: TaskService, leases: LeaseService, registry: RegistryService
) -> None:
    task_id, agent_id = await running(tasks, leases, registry)
    stranger = uuid4()
    await registry.record([make_heartbeat(stranger)])

    [(_, renewed)] = await leases.renew([make_renewal(task_id, stranger)])
    await leases.accept([make_result(task_id, stranger), make_result(task_id, stranger, started=False)])
    await leases.accept([make_result(task_id, agent_id, attempt=2), make_result(task_id, agent_id, fence=2)])

    assert renewed.kept == []
    task = await tasks.get(task_id)
    assert (task.status, task.agent_id, task.attempt) == (Status.RUNNING, agent_id, 1)


def test_an_agent_withdraws_only_its_own_claims_in_advance() -> None:
    standing, owner, claim_id = StandingClaims(most=4), uuid4(), uuid4()
    standing.add(owner, "infra", [claim_id])

    standing.withdraw(uuid4(), [claim_id])

    taken = standing.take("infra")
    assert taken is not None
    assert taken.claim_id == claim_id
