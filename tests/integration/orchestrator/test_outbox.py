"""Orders wait in the ledger until the broker has them, and are sent by themselves when it could not take them."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from common.broker import topology
from common.broker.base import BrokerUnavailable, Outgoing, Unroutable
from common.broker.memory import MemoryBroker
from common.messages import CancelTask
from common.protocol import decode
from orchestrator.database.pool import Pool, transaction
from orchestrator.loops.send_orders import AGAIN_AFTER, SendOrders
from orchestrator.outbox import queries
from orchestrator.tasks.service import TaskService
from tests.eventually import eventually
from tests.factories import make_new_task
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.at_once import meanwhile

# The stated time after which what could not be sent is tried again.
RETRY = timedelta(seconds=1)


async def stop_ordered(tasks: TaskService, pool: Pool, broker: MemoryBroker) -> UUID:
    """Cancel a task that an agent runs, which has its queue; return the agent, which must be told."""
    task, agent_id = make_new_task(), uuid4()
    await broker.declare(topology.control_queue(agent_id))
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=agent_id)
    await tasks.cancel(task.task_id, by="caller")
    return agent_id


async def due(pool: Pool) -> timedelta:
    """Return in which time the only order that waits is to be sent."""
    async with pool.acquire() as db:
        [row] = await db.fetch("SELECT due_at - clock_timestamp() AS due_in FROM outbox")
    due_in: timedelta = row["due_in"]
    return due_in


async def test_a_cancel_order_reaches_its_agent_once(tasks: TaskService, pool: Pool, broker: MemoryBroker) -> None:
    task, agent_id = make_new_task(), uuid4()
    await broker.declare(topology.control_queue(agent_id))
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=agent_id)
    await tasks.cancel(task.task_id, by="caller")

    await SendOrders(pool, broker).run_once()
    await SendOrders(pool, broker).run_once()

    queue = topology.control_queue(agent_id).name
    assert await broker.depth(queue) == 1
    async with broker.consume(queue, prefetch=1) as consumer:
        [delivery] = await consumer.receive()
    envelope = decode(delivery.body)
    assert envelope.trace_id == task.trace_id
    assert envelope.payload.order == CancelTask(task_id=task.task_id, attempt=1)  # type: ignore[union-attr]


async def test_an_order_that_could_not_be_sent_is_sent_a_second_later_by_itself(
    tasks: TaskService, pool: Pool, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_id, orders = await stop_ordered(tasks, pool, broker), SendOrders(pool, broker)

    async def away(*_: object) -> None:
        raise BrokerUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(broker, "publish", away)
        with pytest.raises(BrokerUnavailable):
            await orders.run_once()
    due_in = await due(pool)

    assert due_in <= RETRY
    assert await eventually(orders.run_once, timeout=5) == 1
    assert await broker.depth(topology.control_queue(agent_id).name) == 1


async def test_an_order_whose_publisher_dies_is_in_the_ledger_until_then_and_due_again_within_the_stated_time(
    tasks: TaskService, pool: Pool, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stop_ordered(tasks, pool, broker)
    publish, dues = broker.publish, list[timedelta]()

    async def look_and_publish(*messages: Outgoing) -> None:
        dues.append(await due(pool))
        await publish(*messages)

    monkeypatch.setattr(broker, "publish", look_and_publish)
    await SendOrders(pool, broker).run_once()

    [due_in] = dues
    assert RETRY < due_in <= timedelta(seconds=30)


async def test_an_order_that_was_taken_and_never_removed_is_due_again_by_itself(
    tasks: TaskService, pool: Pool, broker: MemoryBroker
) -> None:
    agent_id = await stop_ordered(tasks, pool, broker)

    async def taken() -> list[UUID]:
        async with pool.acquire() as db:
            orders = await queries.take_orders(db, limit=10, again_after=RETRY)
        return [order.agent_id for order in orders]

    assert (await taken(), await taken()) == ([agent_id], [])
    assert await eventually(taken, timeout=5) == [agent_id]


async def test_of_two_orchestrators_at_once_one_sends_an_order_and_the_other_does_not_wait_for_it(
    tasks: TaskService, pool: Pool, broker: MemoryBroker
) -> None:
    agent_id = await stop_ordered(tasks, pool, broker)

    async with transaction(pool) as db:
        orders = await queries.take_orders(db, limit=10, again_after=AGAIN_AFTER)
        other = await meanwhile(pool, SendOrders(pool, broker).run_once())
        ended_at_once = other.done()

    assert [order.agent_id for order in orders] == [agent_id]
    assert (ended_at_once, await other) == (True, 0)


async def test_an_order_that_no_queue_takes_keeps_no_other_from_its_agent(tasks: TaskService, pool: Pool) -> None:
    broker = AllOrNone()
    await broker.declare(*topology.SHARED_QUEUES)
    agent_id = await stop_ordered(tasks, pool, broker)
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id)
    await tasks.cancel(task.task_id, by="caller")

    await SendOrders(pool, broker).run_once()

    assert await broker.depth(topology.control_queue(agent_id).name) == 1


class AllOrNone(MemoryBroker):
    """Stores nothing of a call of which one message has no queue, as a broker may."""

    async def publish(self, *messages: Outgoing) -> None:
        for message in messages:
            if not self._routes.find(message.address):
                raise Unroutable(message.address.routing_key)
        await super().publish(*messages)


async def test_an_order_that_cannot_be_read_holds_up_no_other(
    tasks: TaskService, pool: Pool, broker: MemoryBroker
) -> None:
    task, agent_id = make_new_task(), uuid4()
    await broker.declare(topology.control_queue(agent_id))
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=agent_id)
    async with pool.acquire() as db:
        await db.execute(
            "INSERT INTO outbox (recipient, priority, body, due_at) VALUES ($1, 5, '{}', now())", str(agent_id)
        )
    await tasks.cancel(task.task_id, by="caller")

    assert await SendOrders(pool, broker).run_once() == 1

    assert await broker.depth(topology.control_queue(agent_id).name) == 1
    async with pool.acquire() as db:
        assert await db.fetchval("SELECT count(*) FROM outbox") == 0


async def test_an_order_for_an_agent_that_is_not_there_is_given_up(
    tasks: TaskService, pool: Pool, broker: MemoryBroker
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id)
    await tasks.cancel(task.task_id, by="caller")

    await SendOrders(pool, broker).run_once()

    async with pool.acquire() as db:
        assert await queries.take_orders(db, limit=10, again_after=AGAIN_AFTER) == []
