"""What must be published is published: by priority, within the window, and again when it may be lost."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from orchestrator.loops.relay_outbox import RelayOutbox

from common.broker import topology
from common.broker.base import BrokerUnavailable
from common.broker.memory import MemoryBroker
from common.messages import CancelTask, Ticket
from common.protocol import decode
from orchestrator.database.pool import Pool
from orchestrator.leases.service import LeaseService
from orchestrator.outbox import queries
from orchestrator.tasks.service import TaskService
from tests.factories import make_claim, make_new_task
from tests.integration.orchestrator.ledger import age

TTL = timedelta(seconds=30)
AGEING = timedelta(minutes=10)


def relay(pool: Pool, broker: MemoryBroker, *, window: int = 64, ttl: timedelta = TTL) -> RelayOutbox:
    return RelayOutbox(pool, broker, agent_types=["infra"], window=window, ttl=ttl, ageing=AGEING)


async def published(broker: MemoryBroker, queue: str = "work.infra") -> list[UUID]:
    """Take everything from a queue and return the tasks it was about, in the order of delivery."""
    found: list[UUID] = []
    async with broker.consume(queue, prefetch=100) as consumer:
        while await broker.depth(queue):
            for delivery in await consumer.receive(100):
                payload = decode(delivery.body).payload
                assert isinstance(payload, Ticket)
                found.append(payload.task_id)
                await consumer.ack(delivery)
    return found


async def test_tickets_are_published_by_priority_and_carry_the_ids(
    tasks: TaskService, pool: Pool, broker: MemoryBroker
) -> None:
    made = [make_new_task(priority=priority) for priority in (1, 3, 5, 2, 4)]
    for task in made:
        await tasks.dispatch([task], by="caller")

    await relay(pool, broker, window=2).run_once()

    assert await published(broker) == [made[2].task_id, made[4].task_id]


@pytest.mark.path_internals
async def test_no_more_than_a_window_of_tickets_is_published_ahead(
    tasks: TaskService, leases: LeaseService, pool: Pool, broker: MemoryBroker
) -> None:
    made = [make_new_task() for _ in range(5)]
    await tasks.dispatch(made, by="caller")
    publisher = relay(pool, broker, window=2)

    assert await publisher.run_once() == 2
    assert await publisher.run_once() == 0
    [first, _] = await published(broker)
    await leases.claim([make_claim(first)])

    assert await publisher.run_once() == 1


async def test_a_ticket_that_nobody_claimed_is_published_again_after_its_time(
    tasks: TaskService, pool: Pool, broker: MemoryBroker
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    publisher = relay(pool, broker, ttl=timedelta(0))
    await publisher.run_once()

    assert await publisher.run_once() == 1


async def test_a_ticket_that_waits_long_goes_before_younger_ones_of_higher_priority(
    tasks: TaskService, pool: Pool, broker: MemoryBroker
) -> None:
    old, young = make_new_task(priority=1), make_new_task(priority=4)
    await tasks.dispatch([old], by="caller")
    await tasks.dispatch([young], by="caller")
    publisher = relay(pool, broker, window=1)

    await age(pool, old.task_id, timedelta(minutes=29))
    await publisher.run_once()
    assert await published(broker) == [young.task_id]

    await age(pool, old.task_id, timedelta(minutes=2))
    async with pool.acquire() as db:
        await db.execute("UPDATE outbox SET published_at = NULL, due_at = now()")
    await publisher.run_once()
    assert await published(broker) == [old.task_id]


async def test_a_ticket_that_waits_long_does_not_starve_in_the_broker_either(
    tasks: TaskService, pool: Pool, broker: MemoryBroker
) -> None:
    old, young = make_new_task(priority=1), make_new_task(priority=3)
    await tasks.dispatch([old, young], by="caller")
    await age(pool, old.task_id, timedelta(minutes=35))

    await relay(pool, broker).run_once()

    async with broker.consume("work.infra", prefetch=2) as consumer:
        deliveries = await consumer.receive(2)
    assert [(delivery.priority, decode(delivery.body).priority) for delivery in deliveries] == [(4, 1), (3, 3)]


async def test_a_ticket_waits_in_the_ledger_while_the_broker_is_away(
    tasks: TaskService, pool: Pool, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise BrokerUnavailable("gone")

    await tasks.dispatch([make_new_task()], by="caller")
    with monkeypatch.context() as patch:
        patch.setattr(broker, "publish", away)
        with pytest.raises(BrokerUnavailable):
            await relay(pool, broker).run_once()

    async with pool.acquire() as db:
        await db.execute("UPDATE outbox SET due_at = now()")
    assert await relay(pool, broker).run_once() == 1


async def test_a_queue_that_was_removed_is_made_again(tasks: TaskService, pool: Pool, broker: MemoryBroker) -> None:
    await broker.delete("work.infra")
    await tasks.dispatch([make_new_task()], by="caller")

    with pytest.raises(BrokerUnavailable):
        await relay(pool, broker).run_once()

    async with pool.acquire() as db:
        await db.execute("UPDATE outbox SET due_at = now()")
    assert await relay(pool, broker).run_once() == 1
    assert len(await published(broker)) == 1


async def test_a_cancel_order_reaches_its_agent_once(
    tasks: TaskService, leases: LeaseService, pool: Pool, broker: MemoryBroker
) -> None:
    task, agent_id = make_new_task(), uuid4()
    await broker.declare(topology.control_queue(agent_id))
    await tasks.dispatch([task], by="caller")
    await leases.claim([make_claim(task.task_id, agent_id=agent_id)])
    await tasks.cancel(task.task_id, by="caller")

    await relay(pool, broker).run_once()
    await relay(pool, broker).run_once()

    queue = topology.control_queue(agent_id).name
    assert await broker.depth(queue) == 1
    async with broker.consume(queue, prefetch=1) as consumer:
        [delivery] = await consumer.receive()
    envelope = decode(delivery.body)
    assert envelope.trace_id == task.trace_id
    assert envelope.payload.order == CancelTask(task_id=task.task_id, fence=1)  # type: ignore[union-attr]


async def test_an_order_for_an_agent_that_is_not_there_is_given_up(
    tasks: TaskService, leases: LeaseService, pool: Pool, broker: MemoryBroker
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    await leases.claim([make_claim(task.task_id)])
    await tasks.cancel(task.task_id, by="caller")

    await relay(pool, broker).run_once()

    async with pool.acquire() as db:
        assert await queries.take_orders(db, limit=10, again_after=TTL) == []
