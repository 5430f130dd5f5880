"""The scenario that the model finds without a journal of starts (I6, I1), against the real agent.

A grant comes twice: once to the process of the agent that ran the work, and once more to the one after a crash. The
work was begun, so it must not be handed back as untouched, and what the spool holds of it must stay.
"""

import asyncio
from pathlib import Path
from uuid import UUID, uuid4

import pytest

import agents.agent
from agents.disk.spool import Spool
from agents.disk.spool_lines import Key, WrittenResult
from agents.identity.registration import open_identity
from agents.main import run_agent
from agents.settings import AgentSettings
from common.broker import topology
from common.broker.base import Outgoing
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from common.messages import Grant, GrantedTask, WorkRequest, WorkResult
from common.orders import Control, Heard
from common.protocol import (
    ORCHESTRATOR,
    ControlEnvelope,
    StatusUpdateEnvelope,
    WorkRequestEnvelope,
    WorkResultEnvelope,
    WorkResultsEnvelope,
    decode,
    encode,
)
from tests.eventually import eventually
from tests.factories import make_result


async def test_work_that_was_begun_before_a_crash_is_never_handed_back_as_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is no orchestrator that could say that it has stored the result.
    monkeypatch.setattr(agents.agent, "STORED_SECONDS", 0.2)
    settings, broker, task_id = AgentSettings(state_dir=tmp_path, slots=1), MemoryBroker(), uuid4()
    with open_identity(settings, work_types=["echo"]) as identity:
        agent_id, pool = identity.agent_id, identity.agent_type
    spool = Spool(tmp_path / "spool")
    spool.open()
    done = WorkResultEnvelope(from_agent=str(agent_id), to_agent="orchestrator", payload=make_result(task_id, agent_id))
    assert spool.keep([WrittenResult.of(done)]) == [None]
    work = topology.work_queue(pool, agent_id)
    await broker.declare(*topology.SHARED_QUEUES, work, topology.control_queue(agent_id))
    await broker.publish(Outgoing(work.bindings[0], encode(_grant(agent_id, task_id)), "work_request"))
    stop = asyncio.Event()

    agent = asyncio.create_task(run_agent(settings, SharedSettings(broker_url="memory://"), broker=broker, stop=stop))
    # Before the first heartbeat is answered the agent takes no work in.
    hearing = asyncio.create_task(_hear(broker, agent_id))
    await eventually(lambda: _are_consumed(broker, work.name))
    stop.set()
    await agent
    hearing.cancel()

    said = [result for result in await _results(broker) if result.task_id == task_id]
    assert said
    assert all(result.started for result in said)
    kept = Spool(tmp_path / "spool")
    kept.open()
    result = kept.read(Key(task_id, 1))
    assert result is not None
    assert result.envelope().payload.status == "completed"


async def _hear(broker: MemoryBroker, agent_id: UUID) -> None:
    async with broker.consume(topology.HEARTBEATS, prefetch=1) as consumer:
        while True:
            [beat] = await consumer.receive(1)
            envelope = decode(beat.body)
            if isinstance(envelope, StatusUpdateEnvelope) and envelope.payload.beat_id is not None:
                order = Control(order=Heard(beat_id=envelope.payload.beat_id, granted=1))
                answer = ControlEnvelope(from_agent=ORCHESTRATOR, to_agent=str(agent_id), payload=order)
                await broker.publish(Outgoing(topology.control_address(agent_id), encode(answer), answer.type))
            await consumer.ack(beat)


async def _are_consumed(broker: MemoryBroker, work: str) -> bool:
    return await broker.depth(work) == 0 and await broker.depth(topology.RESULTS) > 0


async def _results(broker: MemoryBroker) -> list[WorkResult]:
    waiting = await broker.depth(topology.RESULTS)
    async with broker.consume(topology.RESULTS, prefetch=100) as consumer:
        deliveries = await consumer.receive(100)
        assert len(deliveries) == waiting
        await consumer.ack(*deliveries)
    envelopes = [decode(delivery.body) for delivery in deliveries]
    together = [envelope.payload.results for envelope in envelopes if isinstance(envelope, WorkResultsEnvelope)]
    alone = [envelope for envelope in envelopes if isinstance(envelope, WorkResultEnvelope)]
    return [result.payload for result in [*alone, *(one for some in together for one in some)]]


def _grant(agent_id: object, task_id: object) -> WorkRequestEnvelope:
    granted = GrantedTask.model_validate(
        {
            "claim_id": uuid4(),
            "work": WorkRequest.model_validate({"task_id": task_id, "work_type": "echo"}),
            "trace_id": uuid4(),
            "request_id": uuid4(),
            "attempt": 1,
            "lease_seconds": 60,
        }
    )
    return WorkRequestEnvelope(
        from_agent="orchestrator", to_agent=str(agent_id), payload=Grant(tasks=[granted], credit=1)
    )
