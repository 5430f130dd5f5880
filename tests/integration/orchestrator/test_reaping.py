"""Silence counts as a lost agent only when the agent could have been heard."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from common.broker import topology
from common.broker.base import BrokerUnavailable, Outgoing
from common.broker.memory import MemoryBroker
from common.lifecycle import Status
from common.loop import Wake
from orchestrator.database.pool import Pool
from orchestrator.leases.service import LeaseService
from orchestrator.loops.reap_leases import ReapLeases
from orchestrator.tasks.service import TaskService
from tests.factories import make_new_task
from tests.fakes.clock import FakeClock
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.ledger import let_leases_run_out

GRACE = timedelta(seconds=30)


@pytest.fixture
async def broker() -> MemoryBroker:
    broker = MemoryBroker()
    await broker.declare(*topology.REPLY_QUEUES)
    return broker


@pytest.fixture
async def lost_task(tasks: TaskService, pool: Pool) -> UUID:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id)
    await let_leases_run_out(pool)
    return task.task_id


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def reaper(leases: LeaseService, broker: MemoryBroker, clock: FakeClock) -> ReapLeases:
    return ReapLeases(leases, broker, Wake(), clock, grace=GRACE)


async def run_for(reaper: ReapLeases, clock: FakeClock, *, seconds: int) -> int:
    """Run the loop every second, as it is run, and return how many leases it reaped."""
    reaped = 0
    for _ in range(seconds):
        clock.advance(seconds=1)
        reaped += await reaper.run_once()
    return reaped


async def test_a_silent_agent_loses_its_task(
    reaper: ReapLeases, clock: FakeClock, lost_task: UUID, tasks: TaskService
) -> None:
    await run_for(reaper, clock, seconds=31)

    assert (await tasks.get(lost_task)).status is Status.FAILED


async def test_after_a_start_agents_get_one_leases_time_to_be_heard(
    reaper: ReapLeases, clock: FakeClock, lost_task: UUID
) -> None:
    assert await run_for(reaper, clock, seconds=29) == 0
    assert await run_for(reaper, clock, seconds=2) == 1


async def test_while_replies_wait_to_be_read_nobody_is_lost(
    reaper: ReapLeases, clock: FakeClock, lost_task: UUID, broker: MemoryBroker
) -> None:
    await run_for(reaper, clock, seconds=28)
    await broker.publish(Outgoing(topology.reply_address(uuid4(), topology.RESULTS), b"unread", type="work_result"))

    assert await run_for(reaper, clock, seconds=25) == 0

    async with broker.consume(topology.RESULTS, prefetch=1) as consumer:
        await consumer.ack(*await consumer.receive())
    assert await run_for(reaper, clock, seconds=1) == 1


async def test_replies_that_never_end_do_not_keep_lost_tasks_for_ever(
    reaper: ReapLeases, clock: FakeClock, lost_task: UUID, broker: MemoryBroker
) -> None:
    await broker.publish(Outgoing(topology.reply_address(uuid4(), topology.RESULTS), b"unread", type="work_result"))

    assert await run_for(reaper, clock, seconds=40) == 1


async def test_while_the_broker_is_away_and_just_after_nobody_is_lost(
    reaper: ReapLeases,
    clock: FakeClock,
    lost_task: UUID,
    broker: MemoryBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(queue: str) -> int:
        raise BrokerUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(broker, "depth", away)
        assert await run_for(reaper, clock, seconds=100) == 0

    assert await run_for(reaper, clock, seconds=29) == 0
    assert await run_for(reaper, clock, seconds=2) == 1


async def test_agents_get_one_leases_time_from_when_the_broker_is_back_also_when_it_was_slow_to_say_that_it_is_away(
    reaper: ReapLeases,
    clock: FakeClock,
    lost_task: UUID,
    broker: MemoryBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(queue: str) -> int:
        clock.advance(seconds=10)
        raise BrokerUnavailable("no answer within 10 s")

    with monkeypatch.context() as patch:
        patch.setattr(broker, "depth", away)
        assert await run_for(reaper, clock, seconds=10) == 0

    assert await run_for(reaper, clock, seconds=29) == 0
    assert await run_for(reaper, clock, seconds=2) == 1


async def test_an_orchestrator_that_was_stopped_itself_does_not_take_everybody_for_lost(
    reaper: ReapLeases, clock: FakeClock, tasks: TaskService, pool: Pool
) -> None:
    await run_for(reaper, clock, seconds=60)
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id)
    await let_leases_run_out(pool)

    clock.advance(seconds=100)

    assert await reaper.run_once() == 0
    assert await run_for(reaper, clock, seconds=31) == 1
