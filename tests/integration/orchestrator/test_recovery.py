"""What a crash, an emptied broker or a lost connection left behind is found and mended."""

import asyncio
from uuid import uuid4

import pytest

from common.broker import topology
from common.broker.base import BrokerUnavailable
from common.broker.memory import MemoryBroker
from common.lifecycle import Status
from common.loop import Wake
from common.protocol import WorkRequestEnvelope, decode
from orchestrator.database.pool import Pool
from orchestrator.loops.give_work import GiveWork
from orchestrator.loops.recover import RecoverAfterOutages, log_leases
from orchestrator.loops.send_work import SendWork
from tests.factories import make_new_task
from tests.integration.orchestrator.ledger import let_leases_run_out
from tests.integration.orchestrator.on_credit import Agent, Orchestrator


async def test_what_an_orchestrator_that_died_had_stored_another_one_gives(pool: Pool) -> None:
    first, agent, task = Orchestrator(pool), Agent(), make_new_task()
    await first.tasks.dispatch([task], by="caller")  # and it dies

    second = Orchestrator(pool)
    await second.hears(agent)

    assert await second.give() == {task.task_id: agent.agent_id}


async def test_what_an_orchestrator_that_died_had_leased_and_never_sent_is_granted_again(pool: Pool) -> None:
    first, agent, task = Orchestrator(pool), Agent(), make_new_task()
    await first.hears(agent)
    assert len((await first.dispatch(task)).leased) == 1  # and it dies

    second = Orchestrator(pool)
    await second.hears(agent)
    [again] = await second.leases.settle({agent.agent_id: agent.credit(received=0, heard=1)})

    assert (again.task.task_id, again.agent_id, again.claim_id) == (task.task_id, agent.agent_id, agent.session)
    assert again.attempt == 1


async def test_work_that_the_broker_lost_is_granted_again_and_arrives(pool: Pool, broker: MemoryBroker) -> None:
    one, agent, task = Orchestrator(pool), Agent(), make_new_task()
    queue = topology.work_queue("infra", agent.agent_id)
    await broker.declare(queue)
    send = SendWork(one.leases, broker, None, max_output_bytes=1000)
    await one.hears(agent)
    await send.send((await one.dispatch(task)).leased)
    await broker.delete(queue.name)
    await broker.declare(queue)

    await send.send(await one.leases.settle({agent.agent_id: agent.credit(received=0, heard=1)}))

    async with broker.consume(queue.name, prefetch=1) as consumer:
        [delivery] = await consumer.receive()
    envelope = decode(delivery.body)
    assert isinstance(envelope, WorkRequestEnvelope)
    assert [grant.work.task_id for grant in envelope.payload.tasks] == [task.task_id]


async def test_work_that_could_not_be_sent_while_the_broker_was_away_stays_leased_and_is_granted_again(
    pool: Pool, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, agent, task = Orchestrator(pool), Agent(), make_new_task()
    await one.hears(agent)
    leased = (await one.dispatch(task)).leased

    async def away(*_: object) -> None:
        raise BrokerUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(broker, "publish", away)
        await SendWork(one.leases, broker, None, max_output_bytes=1000).send(leased)

    assert (await one.tasks.get(task.task_id)).status is Status.RUNNING
    assert len(await one.leases.settle({agent.agent_id: agent.credit(received=0, heard=1)})) == 1


async def test_work_for_an_agent_without_a_queue_goes_to_another_untouched(pool: Pool, broker: MemoryBroker) -> None:
    one, gone, other, task = Orchestrator(pool), Agent(), Agent(), make_new_task()
    await broker.declare(topology.work_queue("infra", other.agent_id))
    await one.hears(gone)

    await SendWork(one.leases, broker, None, max_output_bytes=1000).send((await one.dispatch(task)).leased)
    stored = await one.tasks.get(task.task_id)
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET status = 'offline'")
    await one.hears(other)

    assert (stored.status, stored.starts) == (Status.PENDING, 0), "its only start is not used up"
    assert await one.give() == {task.task_id: other.agent_id}


async def test_a_task_whose_agent_died_goes_to_the_next(pool: Pool) -> None:
    one, died, other, task = Orchestrator(pool), Agent(slots=1), Agent(slots=1), make_new_task(max_attempts=2)
    await one.hears(died)
    await one.dispatch(task)
    await let_leases_run_out(pool)
    assert await one.leases.reap(limit=10) == 1
    await one.hears(other)

    assert await one.give() == {task.task_id: other.agent_id}


@pytest.mark.parametrize("of", ["broker", "ledger"])
async def test_after_an_outage_the_loops_look_at_once_and_once(
    pool: Pool, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    giver = Wake()
    recover = RecoverAfterOutages(broker, pool.database, giver)

    assert await recover.run_once() == 0
    if of == "broker":
        broker.generation += 1
    else:
        monkeypatch.setattr(pool.database, "generation", pool.database.generation + 1)
    assert await recover.run_once() == 1
    assert await recover.run_once() == 0
    await asyncio.wait_for(giver.rung(), 1)


async def test_there_is_nothing_to_give_when_all_is_well(pool: Pool, broker: MemoryBroker) -> None:
    one, agent, running = Orchestrator(pool), Agent(slots=1), make_new_task()
    waiting = make_new_task()
    await one.hears(agent)
    await one.dispatch(running, waiting)
    send = SendWork(one.leases, broker, None, max_output_bytes=1000)

    assert await GiveWork(pool, one.giving, one.leases, send).run_once() == 0
    await log_leases(pool)

    assert (await one.tasks.get(running.task_id)).status is Status.RUNNING
    assert (await one.tasks.get(waiting.task_id)).status is Status.PENDING
    assert not await one.leases.settle({agent.agent_id: agent.credit(received=1, heard=1)})


async def test_a_grant_is_not_granted_again_to_another_session(pool: Pool) -> None:
    one, agent, task = Orchestrator(pool), Agent(), make_new_task()
    await one.hears(agent)
    await one.dispatch(task)
    agent.session = uuid4()

    assert await one.leases.settle({agent.agent_id: agent.credit(received=0, heard=1)}) == []
