"""What an agent has claimed in advance goes to it with its dispatch, once, and only as long as it may have it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.broker import topology
from common.broker.memory import MemoryBroker
from common.lifecycle import Status
from common.messages import AgentStatus, Grant, ResultStatus
from common.protocol import GrantEnvelope, RefusalEnvelope, decode
from orchestrator.approvals.rules import ApprovalMismatch
from orchestrator.database.pool import Pool
from orchestrator.dispatch.service import Dispatched, DispatchService
from orchestrator.dispatch.standing import COUNTS_FOR, StandingClaims
from orchestrator.dispatch.withdrawals import NOT_TAKEN, Withdrawals
from orchestrator.events.model import Kind
from orchestrator.leases.service import LeaseService
from orchestrator.loops.relay_outbox import RelayOutbox
from orchestrator.loops.send_new import SendNew
from orchestrator.loops.serve_standing import ServeStanding
from orchestrator.outbox import queries as outbox
from orchestrator.outbox.room import Room
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.dispatch import IdempotencyConflict
from orchestrator.tasks.model import Identity
from orchestrator.tasks.service import TaskService
from tests.eventually import eventually
from tests.factories import make_claim, make_heartbeat, make_new_task, make_result
from tests.integration.orchestrator.conftest import AGEING, LEASE
from tests.integration.orchestrator.ledger import kinds_of
from tests.integration.orchestrator.test_shut_out import disable, named

TTL = timedelta(seconds=30)
CLAIMED = [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]


@dataclass
class Now:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Front:
    """Everything through which new work goes, with one agent that is idle."""

    pool: Pool
    tasks: TaskService
    agent_id: UUID
    now: Now = field(default_factory=Now)
    room: Room = field(default_factory=Room)

    def __post_init__(self) -> None:
        self.standing = StandingClaims(most=8, now=self.now)
        self.room.found("infra", free=100, taken=0)
        limits: dict[str, Any] = {"lease": LEASE, "max_output_bytes": 1000}
        self.service = DispatchService(
            self.pool, self.tasks, self.standing, self.room, ageing=AGEING, ttl=TTL, **limits
        )
        self.withdrawals = Withdrawals(self.pool, **limits)

    def claim(self, count: int = 1, *, agent_id: UUID | None = None) -> list[UUID]:
        claims = [uuid4() for _ in range(count)]
        self.standing.add(agent_id or self.agent_id, "infra", claims)
        return claims

    async def dispatch(self, *tasks: Any) -> Dispatched:
        return await self.service.dispatch(tasks, by="caller")


@pytest.fixture
async def front(pool: Pool, tasks: TaskService, registry: RegistryService) -> Front:
    agent_id = await named(pool, "web-1")
    await registry.record([make_heartbeat(agent_id)])
    return Front(pool, tasks, agent_id)


async def tickets_of(pool: Pool) -> set[UUID]:
    async with pool.acquire() as db:
        return {row["task_id"] for row in await db.fetch("SELECT task_id FROM outbox WHERE kind = 'ticket'")}


async def test_a_task_is_leased_to_the_agent_that_claimed_in_advance_with_its_dispatch(
    front: Front, pool: Pool
) -> None:
    [claim_id] = front.claim()
    task = make_new_task(parameters={"message": "grüße"})

    done = await front.dispatch(task)

    [(agent_id, grant)] = done.grants
    assert agent_id == front.agent_id
    assert grant.claim_id == claim_id
    assert (grant.attempt, grant.fence, grant.lease_seconds) == (1, 1, LEASE.total_seconds())
    assert grant.work.parameters == {"message": "grüße"}
    assert grant.ruled_digest == task.work_digest.hex()
    stored = await front.tasks.get(task.task_id)
    assert (stored.status, stored.agent_id, stored.claim_id) == (Status.RUNNING, front.agent_id, claim_id)
    assert await kinds_of(pool, task.task_id) == CLAIMED
    assert await tickets_of(pool) == set(), "nobody else is told of it"
    assert done.answers == [Identity(task.task_id, task.request_id, task.trace_id, task.digest)]


async def test_its_result_counts_like_any_other(front: Front, leases: LeaseService) -> None:
    front.claim()
    task = make_new_task()
    await front.dispatch(task)

    await leases.accept([make_result(task.task_id, front.agent_id)])

    assert (await front.tasks.get(task.task_id)).status is Status.COMPLETED


async def test_the_grant_is_the_same_that_a_claim_with_the_ticket_would_get(front: Front, leases: LeaseService) -> None:
    front.claim()
    first, second = make_new_task(), make_new_task()
    [(_, at_once)] = (await front.dispatch(first)).grants
    await front.dispatch(second)

    [answer] = await leases.claim([make_claim(second.task_id, agent_id=front.agent_id)])

    assert answer.grant is not None
    [claimed] = answer.grant.tasks
    ids = {"work", "claim_id", "trace_id", "request_id", "max_output_bytes"}
    assert at_once.model_dump(exclude=ids) == claimed.model_dump(exclude=ids)


async def test_a_claim_counts_for_one_task_and_the_most_urgent_gets_it(front: Front, pool: Pool) -> None:
    front.claim()
    normal, urgent = make_new_task(), make_new_task(priority=5)

    done = await front.dispatch(normal, urgent)

    assert [grant.work.task_id for _, grant in done.grants] == [urgent.task_id]
    assert await tickets_of(pool) == {normal.task_id}


async def test_what_was_dispatched_before_is_answered_the_same_and_leased_once(front: Front, pool: Pool) -> None:
    front.claim(2)
    task = make_new_task()
    first = await front.dispatch(task)

    again = await front.dispatch(task)

    assert again.answers == first.answers
    assert again.grants == []
    assert await kinds_of(pool, task.task_id) == CLAIMED


async def test_a_claim_that_a_known_task_does_not_need_stands_for_the_next(front: Front) -> None:
    task = make_new_task()
    await front.dispatch(task)
    front.claim()
    await front.dispatch(task)

    assert len((await front.dispatch(make_new_task())).grants) == 1


async def test_the_same_twice_in_one_call_is_leased_once(front: Front, pool: Pool) -> None:
    front.claim(2)
    task = make_new_task()

    done = await front.dispatch(task, task)

    assert done.answers[0] == done.answers[1]
    assert (await kinds_of(pool, task.task_id)).count(Kind.TASK_DISPATCHED) == 1
    assert len(done.grants) <= 1


async def test_an_id_that_is_taken_by_other_work_conflicts_and_the_others_are_stored(front: Front) -> None:
    front.claim(3)
    task, other = make_new_task(), make_new_task()
    await front.dispatch(task)

    done = await front.dispatch(make_new_task(task_id=task.task_id, parameters={"message": "bye"}), other)

    assert isinstance(done.answers[0], IdempotencyConflict)
    assert [grant.work.task_id for _, grant in done.grants] == [other.task_id]


async def test_many_callers_at_once_lease_each_task_once(front: Front, pool: Pool) -> None:
    front.standing.most = 100
    front.claim(40)
    made = [make_new_task() for _ in range(20)]

    done = await asyncio.gather(*(front.dispatch(task) for task in made * 2))

    granted = [grant.work.task_id for one in done for _, grant in one.grants]
    assert sorted(granted) == sorted(task.task_id for task in made)
    for task in made:
        assert await kinds_of(pool, task.task_id) == CLAIMED


Unfit = Callable[[Pool, RegistryService, UUID], Awaitable[object]]


async def paused(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET paused_until = $2, paused_by = 'ann' WHERE agent_id = $1", agent_id, until)


async def draining(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET draining = true WHERE agent_id = $1", agent_id)


async def tripped(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET tripped_until = now() WHERE agent_id = $1", agent_id)


async def leaving(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    await registry.record([make_heartbeat(agent_id, status=AgentStatus.DRAINING)])


async def shut_out(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    await disable(pool, agent_id)


async def of_another_type(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    await registry.record([make_heartbeat(agent_id, agent_type="desktop")])


async def without_an_executor(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    await registry.record([make_heartbeat(agent_id, work_types=["shell_script"])])


@pytest.mark.parametrize("unfit", [paused, draining, tripped, leaving, shut_out, of_another_type, without_an_executor])
async def test_an_agent_that_may_not_have_it_does_not_get_it_and_others_may(
    front: Front, pool: Pool, registry: RegistryService, unfit: Unfit
) -> None:
    await unfit(pool, registry, front.agent_id)
    front.claim()
    task = make_new_task()

    done = await front.dispatch(task)

    assert done.grants == []
    assert done.left == [task], "the relay is told"
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED]
    async with pool.acquire() as db:
        assert [one.task_id for one in await outbox.best_due(db, "infra", limit=10)] == [task.task_id]


async def test_an_agent_that_never_registered_gets_nothing(front: Front, pool: Pool) -> None:
    front.claim(agent_id=uuid4())
    assert (await front.dispatch(make_new_task())).grants == []


@pytest.mark.parametrize("values", [{"ordering_key": "a"}, {"concurrency_key": "a", "concurrency_limit": 1}])
async def test_what_has_keys_goes_the_way_that_keeps_them(front: Front, pool: Pool, values: dict[str, Any]) -> None:
    front.claim()
    task = make_new_task(**values)
    assert (await front.dispatch(task)).grants == []
    assert await tickets_of(pool) == {task.task_id}


async def test_what_brings_an_approval_along_goes_the_way_that_checks_it(front: Front) -> None:
    front.claim()
    done = await front.dispatch(make_new_task(approval_id=uuid4()))
    assert done.grants == []
    assert isinstance(done.answers[0], ApprovalMismatch), "there is no such approval"


async def test_what_is_new_does_not_overtake_what_waits(front: Front, pool: Pool) -> None:
    front.room.found("infra", free=0, taken=0)
    front.claim()
    task = make_new_task(priority=5)

    assert (await front.dispatch(task)).grants == []
    assert await tickets_of(pool) == {task.task_id}


async def test_a_claim_counts_for_a_moment_only(front: Front) -> None:
    front.claim()
    front.now.seconds += COUNTS_FOR
    assert (await front.dispatch(make_new_task())).grants == []


async def test_an_agent_has_no_more_claims_than_it_may(front: Front) -> None:
    for _ in range(4):
        front.claim(5)
    done = await front.dispatch(*(make_new_task() for _ in range(20)))
    assert len(done.grants) == front.standing.most
    front.claim(5)
    assert len((await front.dispatch(make_new_task())).grants) == 1, "those that were used do not count"


async def test_a_claim_that_comes_twice_counts_once(front: Front) -> None:
    [claim_id] = front.claim()
    front.standing.add(front.agent_id, "infra", [claim_id])
    done = await front.dispatch(make_new_task(), make_new_task())
    assert len(done.grants) == 1


async def test_a_withdrawn_claim_gets_nothing_more_and_its_agent_is_told(front: Front) -> None:
    [claim_id] = front.claim()

    assert front.standing.withdraw([claim_id]) == [claim_id]
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

    assert front.standing.withdraw([claim_id]) == []
    front.standing.settle([taken])
    assert front.standing.withdraw([claim_id]) == [claim_id]


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

    serve._leases = Late(pool, lease=LEASE, ageing=AGEING, policy=leases._policy)
    await serve.run_once()

    [told] = await until_told(broker, front.agent_id, 1)
    assert isinstance(told, RefusalEnvelope)
    assert await kinds_of(pool, task.task_id) == CLAIMED


async def test_a_task_that_failed_is_tried_again_as_ever(front: Front, leases: LeaseService, pool: Pool) -> None:
    front.claim()
    task = make_new_task(max_attempts=2)
    await front.dispatch(task)

    await leases.accept(
        [make_result(task.task_id, front.agent_id, status=ResultStatus.FAILED, retryable=True, exit_code=1)]
    )

    assert (await front.tasks.get(task.task_id)).status is Status.PENDING
    assert await tickets_of(pool) == {task.task_id}
    assert await kinds_of(pool, task.task_id) == [*CLAIMED, Kind.TASK_REQUEUED]
