"""What never reached an agent that fell silent goes to another agent at once; what it may have got stays its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import pytest

from common.broker import topology
from common.broker.base import Address, BrokerUnavailable, Outgoing, Queue
from common.broker.memory import MemoryBroker
from common.lifecycle import Status
from orchestrator.database.pool import Pool
from orchestrator.loops.send_work import SendWork
from orchestrator.loops.watch_agents import WatchAgents
from tests.factories import make_new_task
from tests.integration.orchestrator.on_credit import Agent, Orchestrator


@pytest.fixture
def send(at: Orchestrator, broker: MemoryBroker) -> SendWork:
    return SendWork(at.leases, broker, None, max_output_bytes=1000)


@pytest.fixture
def watch(at: Orchestrator, broker: MemoryBroker) -> WatchAgents:
    return WatchAgents(at.registry, at.leases, broker)


async def leased_to(at: Orchestrator, broker: MemoryBroker, agent: Agent) -> UUID:
    """Lease a task, which may be started once, to an agent that has its queue."""
    await broker.declare(queue_of(agent))
    await at.hears(agent)
    task = make_new_task()
    [leased] = (await at.dispatch(task)).leased
    assert (leased.task.task_id, leased.agent_id) == (task.task_id, agent.agent_id)
    await SendWork(at.leases, broker, None, max_output_bytes=1000).send([leased])
    return task.task_id


def queue_of(agent: Agent) -> Queue:
    return topology.work_queue("infra", agent.agent_id)


async def falls_silent(pool: Pool, agent: Agent, watch: WatchAgents) -> None:
    async with pool.acquire() as db:
        await db.execute(
            "UPDATE agent SET last_heartbeat_at = now() - $2::interval WHERE agent_id = $1",
            agent.agent_id,
            timedelta(seconds=31),
        )
    assert await watch.run_once() == 1


@contextmanager
def away(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the broker be away, as far as its queues are asked for."""

    async def depth(queue: str) -> int:
        raise BrokerUnavailable("away")

    with monkeypatch.context() as outage:
        outage.setattr(broker, "depth", depth)
        yield


async def test_work_that_never_reached_a_silent_agent_goes_to_another_without_using_its_only_start(
    at: Orchestrator, broker: MemoryBroker, pool: Pool, watch: WatchAgents
) -> None:
    silent, other = Agent(slots=1), Agent(slots=1)
    task_id = await leased_to(at, broker, silent)

    await falls_silent(pool, silent, watch)

    stored = await at.tasks.get(task_id)
    assert (stored.status, stored.starts) == (Status.PENDING, 0)
    # Its agent, when it comes back, finds nothing that it might begin.
    assert await broker.depth(queue_of(silent).name) == 0
    await at.hears(other)
    assert await at.give() == {task_id: other.agent_id}


async def test_work_that_a_silent_agent_may_have_got_stays_leased_to_it(
    at: Orchestrator, broker: MemoryBroker, pool: Pool, watch: WatchAgents
) -> None:
    silent = Agent(slots=1)
    task_id = await leased_to(at, broker, silent)
    async with broker.consume(queue_of(silent).name, prefetch=1) as consumer:
        await consumer.requeue(*await consumer.receive())

    await falls_silent(pool, silent, watch)

    stored = await at.tasks.get(task_id)
    assert (stored.status, stored.starts) == (Status.RUNNING, 1)


async def test_work_that_was_sent_twice_stays_leased_to_a_silent_agent(
    at: Orchestrator, send: SendWork, broker: MemoryBroker, pool: Pool, watch: WatchAgents
) -> None:
    silent = Agent(slots=1)
    task_id = await leased_to(at, broker, silent)
    async with broker.consume(queue_of(silent).name, prefetch=1) as consumer:
        await consumer.ack(*await consumer.receive())
    # The agent got it just after it said that it had not, so that it was sent once more.
    again = await at.leases.settle({silent.agent_id: silent.credit(received=0, heard=1)})
    assert [one.task.task_id for one in again] == [task_id]
    await send.send(again)

    await falls_silent(pool, silent, watch)

    stored = await at.tasks.get(task_id)
    assert (stored.status, stored.starts) == (Status.RUNNING, 1)


async def test_work_that_was_sent_with_that_of_an_agent_without_a_queue_stays_leased_to_a_silent_agent(
    at: Orchestrator, send: SendWork, broker: MemoryBroker, pool: Pool, watch: WatchAgents
) -> None:
    silent, without_queue = Agent(slots=1), Agent(slots=1)
    await broker.declare(queue_of(silent))
    await at.hears(silent, without_queue)
    leased = (await at.dispatch(make_new_task(), make_new_task())).leased
    [task_id] = [one.task.task_id for one in leased if one.agent_id == silent.agent_id]
    # Its message is sent with the other, and once more alone; the agent gets only the first.
    await send.send(leased)
    async with broker.consume(queue_of(silent).name, prefetch=1) as consumer:
        await consumer.ack(*await consumer.receive())

    await falls_silent(pool, silent, watch)

    assert (await at.tasks.get(task_id)).status is Status.RUNNING


async def test_a_message_that_is_no_grant_is_a_dead_letter_when_the_work_of_a_silent_agent_is_taken_back(
    at: Orchestrator, broker: MemoryBroker, pool: Pool, watch: WatchAgents
) -> None:
    silent = Agent(slots=1)
    task_id = await leased_to(at, broker, silent)
    await broker.publish(Outgoing(Address(topology.WORK, queue_of(silent).name), b"\xff no message", type="none"))

    await falls_silent(pool, silent, watch)

    assert (await at.tasks.get(task_id)).status is Status.PENDING
    assert await broker.depth(topology.DEAD_LETTER_QUEUE.name) == 1
    async with broker.consume(topology.DEAD_LETTER_QUEUE.name, prefetch=1) as consumer:
        [buried] = await consumer.receive()
    assert buried.body == b"\xff no message"


async def test_a_queue_in_which_nothing_waits_stays_as_it_is(
    at: Orchestrator, broker: MemoryBroker, pool: Pool, watch: WatchAgents
) -> None:
    silent = Agent(slots=1)
    task_id = await leased_to(at, broker, silent)
    async with broker.consume(queue_of(silent).name, prefetch=1) as consumer:
        [delivery] = await consumer.receive()

        await falls_silent(pool, silent, watch)

        # Its agent is slow rather than gone, and goes on with what it got.
        await consumer.requeue(delivery)
        [once_more] = await consumer.receive()
        assert once_more.body == delivery.body
    assert (await at.tasks.get(task_id)).status is Status.RUNNING


async def test_what_waits_is_taken_back_when_the_broker_is_there_again(
    at: Orchestrator, broker: MemoryBroker, pool: Pool, watch: WatchAgents, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Agent(slots=1)
    task_id = await leased_to(at, broker, silent)

    with away(broker, monkeypatch):
        await falls_silent(pool, silent, watch)
    assert (await at.tasks.get(task_id)).status is Status.RUNNING

    await watch.run_once()

    assert (await at.tasks.get(task_id)).status is Status.PENDING


async def test_nothing_is_taken_from_an_agent_that_was_heard_again_meanwhile(
    at: Orchestrator, broker: MemoryBroker, pool: Pool, watch: WatchAgents, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Agent(slots=1)
    task_id = await leased_to(at, broker, silent)

    with away(broker, monkeypatch):
        await falls_silent(pool, silent, watch)
    await at.hears(silent)

    await watch.run_once()

    assert (await at.tasks.get(task_id)).status is Status.RUNNING
    assert await broker.depth(queue_of(silent).name) == 1
