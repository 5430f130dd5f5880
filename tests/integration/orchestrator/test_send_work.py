"""Leased work travels together: one message for the tasks of one agent and one priority, and none is lost."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from common.broker import topology
from common.broker.base import Delivery
from common.broker.memory import MemoryBroker
from common.lifecycle import Status
from common.protocol import WorkRequestEnvelope, decode
from orchestrator.loops.send_work import TASKS_IN_A_MESSAGE, SendWork
from tests.eventually import eventually
from tests.factories import make_new_task
from tests.integration.orchestrator.on_credit import Agent, Orchestrator


@pytest.fixture
def send(at: Orchestrator, broker: MemoryBroker) -> SendWork:
    return SendWork(at.leases, broker, None, max_output_bytes=1000)


async def heard(at: Orchestrator, broker: MemoryBroker, slots: int) -> Agent:
    """Have an agent heard that has its queue."""
    agent = Agent(slots=slots)
    await broker.declare(topology.work_queue("infra", agent.agent_id))
    await at.hears(agent)
    return agent


async def sent_to(broker: MemoryBroker, agent: Agent) -> list[tuple[Delivery, WorkRequestEnvelope]]:
    queue, found = topology.work_queue("infra", agent.agent_id).name, []
    async with broker.consume(queue, prefetch=100) as consumer:
        while await broker.depth(queue):
            for delivery in await consumer.receive(100):
                envelope = decode(delivery.body)
                assert isinstance(envelope, WorkRequestEnvelope)
                found.append((delivery, envelope))
                await consumer.ack(delivery)
    return found


def tasks_of(envelope: WorkRequestEnvelope) -> list[UUID]:
    return [grant.work.task_id for grant in envelope.payload.tasks]


async def test_tasks_of_one_agent_and_priority_travel_together_the_most_urgent_first(
    at: Orchestrator, send: SendWork, broker: MemoryBroker
) -> None:
    agent = await heard(at, broker, 5)
    low, high = [make_new_task(priority=2) for _ in range(2)], [make_new_task(priority=4) for _ in range(3)]

    await send.send((await at.dispatch(*low, *high)).leased)

    sent = await sent_to(broker, agent)
    assert [(delivery.priority, envelope.priority, len(envelope.payload.tasks)) for delivery, envelope in sent] == [
        (4, 4, 3),
        (2, 2, 2),
    ]
    assert {envelope.to_agent for _, envelope in sent} == {str(agent.agent_id)}
    assert {envelope.payload.credit for _, envelope in sent} == {1}
    assert {envelope.payload.granted for _, envelope in sent} == {5}
    assert sorted(tasks_of(sent[0][1])) == sorted(task.task_id for task in high)


async def test_a_message_holds_no_more_than_a_broker_takes(
    at: Orchestrator, send: SendWork, broker: MemoryBroker
) -> None:
    agent = await heard(at, broker, 2 * TASKS_IN_A_MESSAGE + 1)
    tasks = [make_new_task() for _ in range(2 * TASKS_IN_A_MESSAGE + 1)]

    await send.send((await at.dispatch(*tasks)).leased)

    sent = [tasks_of(envelope) for _, envelope in await sent_to(broker, agent)]
    assert [len(one) for one in sent] == [TASKS_IN_A_MESSAGE, TASKS_IN_A_MESSAGE, 1]
    assert [task_id for one in sent for task_id in one] == [task.task_id for task in tasks]


async def test_work_is_as_it_was_dispatched_with_the_lease_and_the_session(
    at: Orchestrator, send: SendWork, broker: MemoryBroker
) -> None:
    agent, task = await heard(at, broker, 1), make_new_task(parameters={"message": "grüße"}, hints={"note": 1})

    await send.send((await at.dispatch(task)).leased)

    [(_, envelope)] = await sent_to(broker, agent)
    [grant] = envelope.payload.tasks
    assert (grant.work.parameters, grant.work.hints) == ({"message": "grüße"}, {"note": 1})
    assert (grant.attempt, grant.claim_id) == (1, agent.session)
    assert timedelta(seconds=grant.lease_seconds) == timedelta(seconds=30)
    assert (grant.trace_id, grant.request_id, grant.target) == (task.trace_id, task.request_id, "infra")


async def test_an_agent_without_a_queue_keeps_the_work_of_no_other(
    at: Orchestrator, send: SendWork, broker: MemoryBroker
) -> None:
    there, gone = await heard(at, broker, 1), Agent(slots=1)
    await at.hears(gone)
    tasks = [make_new_task(), make_new_task()]
    leased = (await at.dispatch(*tasks)).leased

    await send.send(leased)

    of_there = [one.task.task_id for one in leased if one.agent_id == there.agent_id]
    # Once or twice: an agent can tell what it has got already.
    assert {tuple(tasks_of(envelope)) for _, envelope in await sent_to(broker, there)} == {tuple(of_there)}
    statuses = {task.task_id: (await at.tasks.get(task.task_id)) for task in tasks}
    for task_id, stored in statuses.items():
        assert stored.status is (Status.RUNNING if task_id in of_there else Status.PENDING)
        assert stored.starts == (1 if task_id in of_there else 0)


async def test_an_agent_whose_queue_is_gone_has_one_for_the_next_task(
    at: Orchestrator, send: SendWork, broker: MemoryBroker
) -> None:
    agent = Agent(slots=2)
    await at.hears(agent)
    await send.send((await at.dispatch(make_new_task())).leased)
    task = make_new_task()

    await send.send((await at.dispatch(task)).leased)

    [(_, envelope)] = await sent_to(broker, agent)
    assert tasks_of(envelope) == [task.task_id]


async def test_work_that_was_sent_before_stays_leased_when_its_agent_has_no_queue_any_more(
    at: Orchestrator, send: SendWork, broker: MemoryBroker
) -> None:
    agent, task = await heard(at, broker, 1), make_new_task()
    leased = (await at.dispatch(task)).leased
    await send.send(leased)
    await broker.delete(topology.work_queue("infra", agent.agent_id).name)

    await send.send([replace(one, again=True) for one in leased])

    stored = await at.tasks.get(task.task_id)
    assert (stored.status, stored.starts) == (Status.RUNNING, 1)


async def test_work_that_nobody_fetched_before_its_lease_was_over_is_not_delivered_any_more(
    at: Orchestrator, send: SendWork, broker: MemoryBroker
) -> None:
    agent = await heard(at, broker, 2)
    over, lives = (await at.dispatch(make_new_task(priority=5), make_new_task())).leased
    queue = topology.work_queue("infra", agent.agent_id).name

    await send.send([replace(over, lease=timedelta(milliseconds=100)), lives])

    async def one_is_left() -> bool:
        return await broker.depth(queue) == 1

    await eventually(one_is_left)
    [(_, envelope)] = await sent_to(broker, agent)
    assert tasks_of(envelope) == [lives.task.task_id]
