"""What becomes of claims in advance: lost grants come again, undelivered ones go back, backlogs are served."""

import asyncio
from collections.abc import Awaitable
from typing import Any
from uuid import UUID, uuid4

import pytest
from orchestrator.dispatch.withdrawals import NOT_TAKEN
from orchestrator.loops.relay_outbox import RelayOutbox
from orchestrator.loops.send_new import SendNew
from orchestrator.loops.serve_standing import ServeStanding

from common.broker import topology
from common.broker.memory import MemoryBroker
from common.lifecycle import Status
from common.messages import Grant
from common.protocol import GrantEnvelope, RefusalEnvelope, decode
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.leases.service import LeaseService
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from tests.eventually import eventually
from tests.factories import make_claim, make_new_task, make_result
from tests.integration.orchestrator.conftest import AGEING, LEASE
from tests.integration.orchestrator.ledger import kinds_of
from tests.integration.orchestrator.standing_front import CLAIMED, TTL, Front, open_front, tickets_of
from tests.integration.orchestrator.test_shut_out import disable

pytestmark = pytest.mark.path_internals


@pytest.fixture
async def front(pool: Pool, tasks: TaskService, registry: RegistryService) -> Front:
    return await open_front(pool, tasks, registry)


async def test_a_withdrawn_claim_gets_nothing_more_and_its_agent_is_told(front: Front) -> None:
    [claim_id] = front.claim()

    assert front.standing.withdraw(front.agent_id, [claim_id]) == [claim_id]
    [answer] = await front.withdrawals.settle([(front.agent_id, claim_id)])

    assert answer.grant is None
    assert answer.refusal is not None
    [refused] = answer.refusal.tasks
    assert (refused.claim_id, refused.task_id, refused.reason) == (claim_id, None, NOT_TAKEN)
    assert (await front.dispatch(make_new_task())).grants == []


async def test_a_grant_that_was_lost_is_given_again_to_the_agent_that_asks(front: Front) -> None:
    [claim_id] = front.claim()
    [(_, grant)] = (await front.dispatch(make_new_task())).grants

    [answer] = await front.withdrawals.settle([(front.agent_id, claim_id)])

    assert answer.grant == Grant(tasks=[grant])
    assert answer.grant.tasks[0].ruled_digest == grant.ruled_digest


@pytest.mark.parametrize("ended", [True, False])
async def test_a_grant_is_given_again_only_while_its_lease_lives_and_to_whom_it_was_given(
    front: Front, leases: LeaseService, pool: Pool, ended: bool
) -> None:
    [claim_id] = front.claim()
    [(_, grant)] = (await front.dispatch(make_new_task())).grants
    asker = uuid4()
    if ended:
        asker = front.agent_id
        await leases.accept([make_result(grant.work.task_id, front.agent_id)])

    [answer] = await front.withdrawals.settle([(asker, claim_id)])

    assert answer.grant is None


async def test_an_agent_that_was_shut_out_gets_no_grant_again(front: Front, pool: Pool) -> None:
    [claim_id] = front.claim()
    await front.dispatch(make_new_task())
    await disable(pool, front.agent_id)
    [answer] = await front.withdrawals.settle([(front.agent_id, claim_id)])
    assert answer.grant is None


async def test_nobody_is_told_that_a_claim_was_not_taken_while_a_dispatch_may_be_taking_it(front: Front) -> None:
    [claim_id] = front.claim()
    taken = front.standing.take("infra")
    assert taken is not None

    assert front.standing.withdraw(front.agent_id, [claim_id]) == []
    front.standing.settle([taken])
    assert front.standing.withdraw(front.agent_id, [claim_id]) == [claim_id]


async def until_told(broker: MemoryBroker, agent_id: UUID, count: int) -> list[Any]:
    """Return what an agent is told, once there is so much of it."""
    queue = topology.control_queue(agent_id).name
    await eventually(lambda: _is(broker.depth(queue), count))
    async with broker.consume(queue, prefetch=100) as consumer:
        return [decode(delivery.body) for delivery in await consumer.receive(100)]


async def _is(depth: Awaitable[int], count: int) -> bool:
    return await depth == count


async def test_grants_are_sent_with_how_many_claims_an_agent_may_make(
    front: Front, broker: MemoryBroker, leases: LeaseService, pool: Pool
) -> None:
    await broker.declare(topology.control_queue(front.agent_id))
    send = SendNew(_relay(pool, broker), leases, broker, None, most_standing=8)
    front.claim(2)

    send(await front.dispatch(make_new_task(), make_new_task()))

    [told] = await until_told(broker, front.agent_id, 1)
    assert isinstance(told, GrantEnvelope)
    assert len(told.payload.tasks) == 2
    assert told.payload.most_standing == 8
    await send.close()


async def test_what_cannot_be_delivered_is_handed_back_untouched_at_once(
    front: Front, broker: MemoryBroker, leases: LeaseService, pool: Pool
) -> None:
    send = SendNew(_relay(pool, broker), leases, broker, None, most_standing=8)
    front.claim()
    task = make_new_task()

    send(await front.dispatch(task))
    await send.close()

    stored = await front.tasks.get(task.task_id)
    assert (stored.status, stored.starts) == (Status.PENDING, 0), "its only start is not used up"
    assert await kinds_of(pool, task.task_id) == [*CLAIMED, Kind.TASK_REQUEUED]
    assert await tickets_of(pool) == {task.task_id}


def _relay(pool: Pool, broker: MemoryBroker) -> RelayOutbox:
    return RelayOutbox(pool, broker, agent_types=["infra"], window=10, ttl=TTL, ageing=AGEING)


async def serving(front: Front, broker: MemoryBroker, leases: LeaseService, pool: Pool) -> ServeStanding:
    await broker.declare(topology.control_queue(front.agent_id))
    return ServeStanding(pool, leases, front.standing, broker, None)


async def test_what_waits_goes_to_claims_before_it_is_published_the_best_first(
    front: Front, broker: MemoryBroker, leases: LeaseService, pool: Pool
) -> None:
    serve = await serving(front, broker, leases, pool)
    front.room.found("infra", free=0, taken=0)
    low, normal, high = (make_new_task(priority=priority) for priority in (2, 3, 4))
    await front.dispatch(low, normal, high)
    claims = front.claim(2)

    assert await serve.run_once() == 2

    [told] = await until_told(broker, front.agent_id, 1)
    assert isinstance(told, GrantEnvelope)
    assert {grant.work.task_id for grant in told.payload.tasks} == {normal.task_id, high.task_id}
    assert {grant.claim_id for grant in told.payload.tasks} == set(claims)
    assert await tickets_of(pool) == {low.task_id}
    assert await serve.run_once() == 0


async def test_a_claim_is_kept_for_later_when_nothing_waits_that_its_agent_can_do(
    front: Front, broker: MemoryBroker, leases: LeaseService, pool: Pool
) -> None:
    serve = await serving(front, broker, leases, pool)
    front.room.found("infra", free=0, taken=0)
    other = make_new_task(work_type="shell_script")
    await front.dispatch(other)
    front.claim()

    assert await serve.run_once() == 0

    assert await tickets_of(pool) == {other.task_id}
    front.room.found("infra", free=10, taken=0)
    assert len((await front.dispatch(make_new_task())).grants) == 1


async def test_a_task_that_was_claimed_in_between_is_refused_to_the_claim(
    front: Front, broker: MemoryBroker, leases: LeaseService, pool: Pool
) -> None:
    serve = await serving(front, broker, leases, pool)
    front.room.found("infra", free=0, taken=0)
    task = make_new_task()
    await front.dispatch(task)
    front.claim()
    claimed = asyncio.Event()

    class Late(LeaseService):
        async def claim(self, claims: Any) -> Any:
            if not claimed.is_set():
                claimed.set()
                await leases.claim([make_claim(task.task_id)])
            return await leases.claim(claims)

    serve._leases = Late(pool, lease=LEASE, policy=leases._policy)
    await serve.run_once()

    [told] = await until_told(broker, front.agent_id, 1)
    assert isinstance(told, RefusalEnvelope)
    assert await kinds_of(pool, task.task_id) == CLAIMED
