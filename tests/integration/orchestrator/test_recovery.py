"""Before it serves, an orchestrator mends what a crash or an emptied broker left behind, and says so."""

import logging
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from orchestrator.loops.relay_outbox import RelayOutbox

from common.broker import topology
from common.broker.memory import MemoryBroker
from common.lifecycle import Status
from orchestrator.database.pool import Pool
from orchestrator.leases.service import LeaseService
from orchestrator.loops.recover import Recover
from orchestrator.tasks.service import TaskService
from tests.factories import make_claim, make_new_task

TTL = timedelta(seconds=30)
AGEING = timedelta(minutes=10)


@pytest.fixture
def recover(pool: Pool, broker: MemoryBroker) -> Recover:
    return Recover(pool, broker, agent_types=["infra"])


@pytest.fixture
def relay(pool: Pool, broker: MemoryBroker) -> RelayOutbox:
    return RelayOutbox(pool, broker, agent_types=["infra"], window=64, ttl=TTL, ageing=AGEING)


async def dispatched(tasks: TaskService, count: int = 1) -> list[UUID]:
    made = [make_new_task() for _ in range(count)]
    await tasks.dispatch(made, by="caller")
    return [task.task_id for task in made]


async def test_there_is_nothing_to_mend_when_all_is_well(
    tasks: TaskService, leases: LeaseService, recover: Recover, relay: RelayOutbox
) -> None:
    waiting, running = await dispatched(tasks, 2)
    await leases.claim([make_claim(running)])
    await relay.run_once()

    assert await recover.run_once() == 0

    assert (await tasks.get(running)).status is Status.RUNNING
    assert (await tasks.get(waiting)).status is Status.PENDING


async def test_tickets_that_an_emptied_broker_has_forgotten_are_published_again_at_once(
    tasks: TaskService, recover: Recover, relay: RelayOutbox, broker: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    await dispatched(tasks, 3)
    await relay.run_once()
    await broker.delete("work.infra")
    await broker.declare(topology.work_queue("infra"))

    with caplog.at_level(logging.WARNING):
        assert await recover.run_once() == 3

    assert "recovery.tickets_due" in caplog.messages
    assert await relay.run_once() == 3


async def test_a_waiting_task_without_a_ticket_gets_one_and_a_needless_ticket_goes(
    tasks: TaskService, recover: Recover, relay: RelayOutbox, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    [forgotten] = await dispatched(tasks)
    gone = uuid4()
    async with pool.acquire() as db:
        await db.execute("DELETE FROM outbox")
        await db.execute(
            "INSERT INTO outbox (kind, recipient, task_id, priority, body, rank, due_at)"
            " VALUES ('ticket', 'infra', $1, 3, '{}', now(), now())",
            gone,
        )

    with caplog.at_level(logging.WARNING):
        assert await recover.run_once() == 2

    assert {"recovery.ticket_given", "recovery.ticket_removed"} <= set(caplog.messages)
    async with pool.acquire() as db:
        assert [row["task_id"] for row in await db.fetch("SELECT task_id FROM outbox")] == [forgotten]
    assert await relay.run_once() == 1


async def test_a_ticket_given_in_recovery_can_be_claimed(
    tasks: TaskService, leases: LeaseService, recover: Recover, relay: RelayOutbox, pool: Pool, broker: MemoryBroker
) -> None:
    [task_id] = await dispatched(tasks)
    async with pool.acquire() as db:
        await db.execute("DELETE FROM outbox")
    await recover.run_once()
    await relay.run_once()

    assert await broker.depth("work.infra") == 1
    [answer] = await leases.claim([make_claim(task_id)])
    assert answer.grant is not None
