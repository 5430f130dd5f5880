"""Orders wait in the ledger until the broker has them."""

from datetime import timedelta
from uuid import uuid4

import pytest

from common.broker import topology
from common.broker.base import BrokerUnavailable
from common.broker.memory import MemoryBroker
from common.messages import CancelTask
from common.protocol import decode
from orchestrator.database.pool import Pool
from orchestrator.loops.send_orders import AGAIN_AFTER, SendOrders
from orchestrator.outbox import queries
from orchestrator.tasks.service import TaskService
from tests.factories import make_new_task
from tests.integration.ledger import lease_to

TTL = timedelta(seconds=30)
AGEING = timedelta(minutes=10)


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


async def test_an_order_waits_in_the_ledger_while_the_broker_is_away(
    tasks: TaskService, pool: Pool, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, agent_id = make_new_task(), uuid4()
    await broker.declare(topology.control_queue(agent_id))
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=agent_id)
    await tasks.cancel(task.task_id, by="caller")

    async def away(*_: object) -> None:
        raise BrokerUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(broker, "publish", away)
        with pytest.raises(BrokerUnavailable):
            await SendOrders(pool, broker).run_once()

    async with pool.acquire() as db:
        await db.execute("UPDATE outbox SET due_at = now()")
    assert await SendOrders(pool, broker).run_once() == 1
    assert await broker.depth(topology.control_queue(agent_id).name) == 1


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
