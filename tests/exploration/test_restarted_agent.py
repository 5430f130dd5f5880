"""The scenario that the model finds without a journal of starts (I6, I1), against the real agent.

A grant comes twice: once to the life of the agent that ran the work, and once more to the life after a crash. The work
was begun, so it must not be handed back as untouched, and what the spool holds of it must stay.
"""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

import agents.agent
from agents.main import run_agent
from agents.registration import open_identity
from agents.settings import AgentSettings
from agents.spool import Spool
from agents.spool_lines import Key, WrittenResult
from common.broker import topology
from common.broker.base import Outgoing
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from common.messages import Grant, GrantedTask, WorkRequest, WorkResult
from common.protocol import GrantEnvelope, WorkResultEnvelope, decode, encode
from tests.eventually import eventually
from tests.factories import make_result


async def test_work_that_was_begun_before_a_crash_is_never_handed_back_as_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is no orchestrator that could say that it has stored the result.
    monkeypatch.setattr(agents.agent, "STORED_SECONDS", 0.2)
    settings, broker, task_id = AgentSettings(state_dir=tmp_path, slots=1), MemoryBroker(), uuid4()
    with open_identity(settings, work_types=["echo"]) as identity:
        agent_id = identity.agent_id
    spool = Spool(tmp_path / "spool")
    spool.open()
    done = WorkResultEnvelope(
        from_agent=str(agent_id), to_agent="orchestrator", payload=make_result(task_id, agent_id, fence=1)
    )
    assert spool.keep([WrittenResult.of(done)]) == [None]
    control = topology.control_queue(agent_id)
    await broker.declare(topology.DEAD_LETTER_QUEUE, *topology.REPLY_QUEUES, control)
    await broker.publish(Outgoing(control.bindings[0], encode(_grant(agent_id, task_id)), "grant"))
    stop = asyncio.Event()

    agent = asyncio.create_task(run_agent(settings, SharedSettings(broker_url="memory://"), broker=broker, stop=stop))
    await eventually(lambda: _are_consumed(broker, control.name))
    stop.set()
    await agent

    said = [result for result in await _results(broker) if result.task_id == task_id]
    assert said
    assert all(result.started for result in said)
    kept = Spool(tmp_path / "spool")
    kept.open()
    result = kept.read(Key(task_id, 1))
    assert result is not None
    assert result.envelope().payload.status == "completed"


async def _are_consumed(broker: MemoryBroker, control: str) -> bool:
    return await broker.depth(control) == 0 and await broker.depth(topology.RESULTS) > 0


async def _results(broker: MemoryBroker) -> list[WorkResult]:
    waiting = await broker.depth(topology.RESULTS)
    async with broker.consume(topology.RESULTS, prefetch=100) as consumer:
        deliveries = await consumer.receive(100)
        assert len(deliveries) == waiting
        await consumer.ack(*deliveries)
    envelopes = [decode(delivery.body) for delivery in deliveries]
    return [envelope.payload for envelope in envelopes if isinstance(envelope, WorkResultEnvelope)]


def _grant(agent_id: object, task_id: object) -> GrantEnvelope:
    granted = GrantedTask.model_validate(
        {
            "claim_id": uuid4(),
            "work": WorkRequest.model_validate({"task_id": task_id, "work_type": "echo"}),
            "trace_id": uuid4(),
            "request_id": uuid4(),
            "attempt": 1,
            "fence": 1,
            "lease_seconds": 60,
        }
    )
    return GrantEnvelope(from_agent="orchestrator", to_agent=str(agent_id), payload=Grant(tasks=[granted]))
