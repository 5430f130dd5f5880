"""Heartbeats ask for work, and are answered: with what was granted, with what was lost, or with the order to leave."""

from typing import Any
from uuid import UUID

import pytest

from common.broker import topology
from common.broker.base import BrokerUnavailable
from common.broker.memory import MemoryBroker
from common.ids import new_message_id
from common.messages import StatusUpdate
from common.orders import Heard, Leave
from common.protocol import ControlEnvelope, WorkRequestEnvelope, decode
from orchestrator.database.pool import Pool
from orchestrator.loops.consume_heartbeats import ConsumeHeartbeats
from orchestrator.loops.send_work import SendWork
from tests.factories import make_heartbeat, make_new_task
from tests.integration.orchestrator.on_credit import Agent, Orchestrator


class Site:
    """An orchestrator that takes heartbeats from a bus and answers there."""

    def __init__(self, pool: Pool, broker: MemoryBroker) -> None:
        self.at, self.broker = Orchestrator(pool), broker
        self.send = SendWork(self.at.leases, broker, None, max_output_bytes=1000)
        self.consume = ConsumeHeartbeats(
            self.at.registry, self.at.leases, broker, None, send=self.send, credits=self.at.credits
        )

    async def hears(self, *updates: StatusUpdate) -> None:
        await self.consume.handle(updates)
        await self.send.close()

    async def messages(self, queue: str) -> list[Any]:
        """Take everything from a queue."""
        found: list[Any] = []
        async with self.broker.consume(queue, prefetch=100) as consumer:
            while await self.broker.depth(queue):
                for delivery in await consumer.receive(100):
                    found.append(decode(delivery.body))
                    await consumer.ack(delivery)
        return found

    async def orders(self, agent_id: UUID) -> list[Any]:
        found = await self.messages(topology.control_queue(agent_id).name)
        assert all(isinstance(one, ControlEnvelope) for one in found)
        return [one.payload.order for one in found]


@pytest.fixture
def site(pool: Pool, broker: MemoryBroker) -> Site:
    return Site(pool, broker)


async def declared(site: Site, agent_id: UUID) -> None:
    await site.broker.declare(topology.control_queue(agent_id), topology.work_queue("infra", agent_id))


async def test_an_agent_is_told_that_it_was_heard_and_how_much_its_session_was_granted(site: Site) -> None:
    agent, beat_id = Agent(slots=2), new_message_id()
    await declared(site, agent.agent_id)
    await site.hears(agent.heartbeat())
    await site.at.dispatch(make_new_task())
    await site.orders(agent.agent_id)

    await site.hears(agent.heartbeat().model_copy(update={"beat_id": beat_id}))

    assert await site.orders(agent.agent_id) == [Heard(beat_id=beat_id, granted=1)]


async def test_new_work_goes_to_an_agent_that_was_just_heard(site: Site) -> None:
    agent, task = Agent(slots=1), make_new_task()
    await declared(site, agent.agent_id)

    await site.hears(agent.heartbeat())

    assert [one.agent_id for one in (await site.at.dispatch(task)).leased] == [agent.agent_id]


async def test_an_agent_of_an_earlier_version_is_told_to_upgrade_and_gets_no_work(site: Site) -> None:
    old, process = make_heartbeat(version="0.0.9", boot_id=new_message_id()), new_message_id()
    await declared(site, old.agent_id)
    task = make_new_task()

    await site.hears(old.model_copy(update={"boot_id": process}))
    done = await site.at.dispatch(task)

    [order] = await site.orders(old.agent_id)
    assert isinstance(order, Leave)
    assert order.boot_id == process
    assert "0.0.9 is too old" in order.reason
    assert (done.leased, await site.at.give()) == ([], {})


async def test_an_agent_without_queues_gets_them_and_its_answer(site: Site) -> None:
    """It may not be able to make its own."""
    agent, beat_id = Agent(slots=1), new_message_id()

    await site.hears(agent.heartbeat().model_copy(update={"beat_id": beat_id}))
    await site.send.send((await site.at.dispatch(make_new_task())).leased)

    assert await site.orders(agent.agent_id) == [Heard(beat_id=beat_id, granted=0)]
    assert len(await site.messages(topology.work_queue("infra", agent.agent_id).name)) == 1


async def test_what_an_agent_never_got_is_sent_again_when_its_heartbeat_misses_it(site: Site) -> None:
    agent, task = Agent(slots=1), make_new_task()
    await declared(site, agent.agent_id)
    await site.hears(agent.heartbeat())
    await site.at.dispatch(task)  # and it is never sent

    await site.hears(agent.heartbeat(heard=0, received=0))
    before = await site.messages(topology.work_queue("infra", agent.agent_id).name)
    await site.hears(agent.heartbeat(heard=1, received=0))

    assert before == []
    [again] = await site.messages(topology.work_queue("infra", agent.agent_id).name)
    assert isinstance(again, WorkRequestEnvelope)
    assert [grant.work.task_id for grant in again.payload.tasks] == [task.task_id]
    assert again.payload.credit == agent.number


async def test_one_batch_of_heartbeats_is_answered_for_each_agent(site: Site) -> None:
    agents = [Agent(slots=1) for _ in range(5)]
    for agent in agents:
        await declared(site, agent.agent_id)
    beats = {agent.agent_id: new_message_id() for agent in agents}

    await site.hears(
        *(agent.heartbeat().model_copy(update={"beat_id": beats[agent.agent_id]}) for agent in agents),
    )

    for agent in agents:
        assert await site.orders(agent.agent_id) == [Heard(beat_id=beats[agent.agent_id], granted=0)]


async def test_of_two_processes_heard_together_only_the_newer_is_told_what_was_granted(site: Site) -> None:
    older, earlier_beat, newer_beat = Agent(slots=2), new_message_id(), new_message_id()
    newer = Agent(slots=2)
    newer.agent_id = older.agent_id
    await declared(site, older.agent_id)
    await site.hears(older.heartbeat())
    await site.at.dispatch(make_new_task())
    await site.orders(older.agent_id)

    await site.hears(
        older.heartbeat().model_copy(update={"beat_id": earlier_beat}),
        newer.heartbeat().model_copy(update={"beat_id": newer_beat}),
    )

    assert await site.orders(older.agent_id) == [
        Heard(beat_id=earlier_beat, granted=None),
        Heard(beat_id=newer_beat, granted=0),
    ]


async def test_work_that_could_not_be_published_is_sent_again_at_the_second_heartbeat_after_that(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, task = Agent(slots=1), make_new_task()
    queue = topology.work_queue("infra", agent.agent_id).name
    await declared(site, agent.agent_id)
    await site.hears(agent.heartbeat())

    async def away(*_: object) -> None:
        raise BrokerUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(site.broker, "publish", away)
        await site.send.send((await site.at.dispatch(task)).leased)
    await site.hears(agent.heartbeat().model_copy(update={"beat_id": new_message_id()}))
    [heard] = await site.orders(agent.agent_id)
    at_the_first = await site.messages(queue)
    await site.hears(agent.heartbeat(heard=heard.granted))

    assert at_the_first == []
    [again] = await site.messages(queue)
    assert [(grant.work.task_id, grant.attempt) for grant in again.payload.tasks] == [(task.task_id, 1)]
