"""An agent whose identity was disabled gets nothing, keeps nothing and is believed in nothing, on a real ledger."""

from uuid import UUID, uuid4

import pytest

from common.lifecycle import Status
from common.loop import Wake
from common.messages import Credit, Lease
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.identities.enrolment import EnrolmentService
from orchestrator.identities.service import IdentityService
from orchestrator.leases.rules import Stale
from orchestrator.leases.service import LeaseService
from orchestrator.registry.fleet import AgentNotFound, FleetService
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from tests.factories import make_heartbeat, make_new_task, make_renewal, make_result
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import events_of, kinds_of, let_leases_run_out
from tests.integration.orchestrator.on_credit import gets


@pytest.fixture
async def enrolled(pool: Pool) -> UUID:
    """The id of an agent that an administrator has named."""
    return await named(pool, "web-1")


async def named(pool: Pool, name: str) -> UUID:
    enrolment = EnrolmentService(pool, failures_per_second=1)
    return (await enrolment.invite(name, "infra", lasts=LEASE, by="admin")).agent_id


async def disable(pool: Pool, agent_id: UUID) -> None:
    identities = IdentityService(pool)
    [agent] = [one for one in await identities.everybody() if one.agent_id == agent_id]
    await identities.disable(agent.principal_id, by="admin")


@pytest.mark.parametrize("registered", [True, False])
async def test_an_agent_that_was_shut_out_gets_no_task_and_others_do(
    tasks: TaskService, registry: RegistryService, pool: Pool, enrolled: UUID, registered: bool
) -> None:
    if registered:
        await registry.record([make_heartbeat(enrolled)])
    await disable(pool, enrolled)
    task = make_new_task()
    await tasks.dispatch([task], by="caller")

    by_the_statement = await lease_to(pool, task.task_id, agent_id=enrolled)
    by_credit = await gets(pool, enrolled, room=8)
    other = await lease_to(pool, task.task_id, agent_id=await named(pool, "web-2"))

    assert (by_the_statement, by_credit) == ([], [])
    assert [one.task.task_id for one in other] == [task.task_id]


async def test_an_agent_that_was_shut_out_is_not_even_told_again_what_it_was_given(
    tasks: TaskService, leases: LeaseService, pool: Pool, enrolled: UUID
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    [leased] = await lease_to(pool, task.task_id, agent_id=enrolled)
    credit = Credit(session=leased.claim_id, number=2, limit=1, received=0, heard=1)
    await disable(pool, enrolled)

    assert await leases.settle({enrolled: credit}) == []


@pytest.mark.parametrize(("attempts", "becomes"), [(2, Status.PENDING), (1, Status.FAILED)])
async def test_an_agent_that_was_shut_out_loses_its_lease_and_its_work_goes_the_way_of_a_lost_agent(
    tasks: TaskService, leases: LeaseService, pool: Pool, enrolled: UUID, attempts: int, becomes: Status
) -> None:
    kept, lost = make_new_task(), make_new_task(max_attempts=attempts)
    await tasks.dispatch([kept, lost], by="caller")
    other = await named(pool, "web-2")
    await lease_to(pool, kept.task_id, agent_id=other)
    await lease_to(pool, lost.task_id, agent_id=enrolled)
    await disable(pool, enrolled)

    answers = await leases.renew([make_renewal(kept.task_id, other), make_renewal(lost.task_id, enrolled)])

    assert [answer.lost for _, answer in answers] == [[], [Lease(task_id=lost.task_id, attempt=1)]]
    await let_leases_run_out(pool)
    await leases.renew([make_renewal(kept.task_id, other), make_renewal(lost.task_id, enrolled)])
    await leases.reap(limit=10)
    assert [(await tasks.get(task.task_id)).status for task in (kept, lost)] == [Status.RUNNING, becomes]


async def test_a_result_of_an_agent_that_was_shut_out_does_not_count(
    tasks: TaskService, leases: LeaseService, pool: Pool, enrolled: UUID
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=enrolled)
    await disable(pool, enrolled)

    [verdict] = await leases.accept([make_result(task.task_id, enrolled)])

    assert verdict == Stale("the agent's identity was disabled")
    assert (await tasks.get(task.task_id)).status is Status.RUNNING
    assert (await kinds_of(pool, task.task_id))[-1] == Kind.TASK_RESULT_REFUSED


@pytest.mark.parametrize("registered", [True, False])
async def test_an_agent_that_was_shut_out_is_not_known_to_be_there_any_more(
    registry: RegistryService, pool: Pool, enrolled: UUID, registered: bool
) -> None:
    if registered:
        await registry.record([make_heartbeat(enrolled, hostname="before")])
    await disable(pool, enrolled)
    before = len(await events_of(pool))

    await registry.record([make_heartbeat(enrolled, hostname="after"), make_heartbeat(uuid4(), hostname="other")])

    known = {agent.hostname for agent in await registry.list_agents(agent_type=None, status=None)}
    assert known == ({"before", "other"} if registered else {"other"})
    assert [event.kind for event in (await events_of(pool))[before:]] == [Kind.AGENT_REGISTERED]


async def test_orders_do_not_bring_back_an_agent_that_was_shut_out(
    registry: RegistryService, tasks: TaskService, pool: Pool, enrolled: UUID
) -> None:
    fleet, never = FleetService(pool, Wake(), offline_after=LEASE), await named(pool, "web-2")
    await registry.record([make_heartbeat(enrolled)])
    await disable(pool, enrolled)
    await disable(pool, never)
    task = make_new_task()
    await tasks.dispatch([task], by="caller")

    await fleet.resume(enrolled, by="somebody")
    with pytest.raises(AgentNotFound):
        await fleet.resume(never, by="somebody")

    assert await lease_to(pool, task.task_id, agent_id=enrolled) == []
    assert await gets(pool, enrolled) == []
