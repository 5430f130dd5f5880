"""What people do to a fleet and to dead letters, on real servers."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from chiffon.models import Agent
from common.broker import topology
from common.broker.base import Address, Outgoing
from common.messages import AgentStatus
from common.orders import Leave
from common.protocol import ControlEnvelope, StatusUpdateEnvelope, decode, encode
from tests.eventually import eventually
from tests.factories import make_heartbeat
from tests.integration.system.deployment import System

pytestmark = pytest.mark.xdist_group("system/operations")

MINUTE = timedelta(minutes=1)


async def agent_of(system: System) -> Agent:
    """Return the one agent, once it takes work."""
    [agent] = await eventually(system.agents_ready)
    return agent


async def test_a_paused_agent_takes_nothing_until_it_is_resumed(system: System) -> None:
    await system.start_agent()
    agent = await agent_of(system)
    await system.client.pause_agent(agent.agent_id, note="disk", lasting=MINUTE)
    task_id = uuid4()
    await system.client.dispatch("echo", {"message": "x"}, task_id=task_id)

    # The agent beats on and asks for work, and still gets none.
    before = agent.last_heartbeat_at

    async def has_beaten_again() -> bool:
        return (await agent_of(system)).last_heartbeat_at > before + timedelta(seconds=1)

    await eventually(has_beaten_again)
    assert (await system.client.status(task_id)).status == "pending"

    await system.client.resume_agent(agent.agent_id)

    [task] = await system.finished(task_id)
    assert (task.status, task.attempt) == ("completed", 1)


async def test_a_poison_message_is_replayed_to_its_queue_and_comes_back_as_a_new_letter(system: System) -> None:
    results = Address(topology.REPLIES, "stranger.results")
    await system.broker.publish(Outgoing(results, b"\xff\x00", type="work_result"))
    [letter] = await eventually(lambda: system.dead_letters(1))

    found = await system.client.dead_letter(letter.id)
    replayed = await system.client.replay_dead_letter(letter.id)

    assert (letter.queue, found.body, found.body_encoding) == ("replies.results", "/wA=", "base64")
    assert replayed.state == "replayed"
    again, first = await eventually(lambda: system.dead_letters(2))
    assert (first.id, again.state, again.queue) == (letter.id, "waiting", "replies.results")
    assert (await system.client.discard_dead_letter(again.id)).state == "discarded"


async def test_a_message_of_which_nobody_knows_the_queue_is_kept_and_cannot_be_replayed(system: System) -> None:
    beat = StatusUpdateEnvelope(from_agent="stranger", to_agent="orchestrator", payload=make_heartbeat())
    await system.broker.publish(Outgoing(Address(topology.DEAD, ""), encode(beat), beat.type))

    # Nobody said which queue it came from, so it cannot be replayed, only looked at.
    [letter] = await eventually(lambda: system.dead_letters(1))
    assert (letter.state, letter.queue, letter.type) == ("waiting", "unknown", "status_update")
    [result] = await system.client.replay_dead_letters([letter.id])
    assert result.error is not None
    assert (result.status_code, result.error.error_code) == (400, 2002)


async def test_a_task_that_is_dead_is_replayed_as_a_new_one_that_runs(system: System) -> None:
    stop = await system.start_agent(stop_grace_seconds=0, kill_grace_seconds=1)
    task_id = uuid4()
    marker = system.folder / "second-time"
    script = f"if [ -e {marker} ]; then echo done; else touch {marker}; sleep 60; fi"
    await system.client.dispatch("shell_script", {"script": script}, task_id=task_id)
    await eventually(marker.exists)
    stop.set()
    [failed] = await system.finished(task_id)
    [letter] = await eventually(lambda: system.dead_letters(1))

    await system.start_agent()
    settled = await system.client.replay_dead_letter(letter.id)

    assert (failed.status, failed.error_code, letter.task_id) == ("failed", 5002, task_id)
    [again] = await system.finished(settled.replayed_as)
    assert (again.status, again.rerun_of, again.output) == ("completed", task_id, "done\n")


async def test_a_whole_trace_is_cancelled_and_what_runs_is_stopped(system: System) -> None:
    await system.start_agent(slots=1)
    trace_id, ids = uuid4(), [uuid4() for _ in range(5)]
    for task_id in ids:
        await system.client.dispatch("shell_script", {"script": "sleep 60"}, task_id=task_id, trace_id=trace_id)

    async def one_runs() -> bool:
        return len((await system.client.tasks(trace_id=trace_id, status="running")).items) == 1

    await eventually(one_runs)
    answer = await system.client.cancel_trace(trace_id)

    assert sorted(answer.cancelled) == sorted(ids)
    alive = uuid4()
    await system.client.dispatch("echo", {"message": "alive"}, task_id=alive)
    assert [task.status for task in await system.finished(alive)] == ["completed"]


async def test_an_agent_that_cannot_ask_for_work_by_credit_is_told_to_upgrade_and_gets_nothing(system: System) -> None:
    beat = make_heartbeat(version="0.1.0", boot_id=uuid4())
    orders, work = topology.control_queue(beat.agent_id), topology.work_queue("infra", beat.agent_id)
    await system.broker.declare(orders, work)
    heartbeat = StatusUpdateEnvelope(from_agent=str(beat.agent_id), to_agent="orchestrator", payload=beat)
    address = topology.reply_address(beat.agent_id, topology.HEARTBEATS)

    await system.broker.publish(Outgoing(address, encode(heartbeat), heartbeat.type))
    async with system.broker.consume(orders.name, prefetch=1) as consumer, asyncio.timeout(20):
        [delivery] = await consumer.receive()
    await system.client.dispatch("echo", {"message": "x"}, task_id=(task_id := uuid4()))
    await system.start_agent()
    [task] = await system.finished(task_id)
    gone = heartbeat.model_copy(update={"payload": beat.model_copy(update={"status": AgentStatus.OFFLINE})})
    await system.broker.publish(Outgoing(address, encode(gone), gone.type))

    told = decode(delivery.body)
    assert isinstance(told, ControlEnvelope)
    assert told.payload.order == Leave(
        boot_id=beat.boot_id, reason="its version 0.1.0 is too old for this orchestrator: upgrade the agent"
    )
    assert (task.status, task.attempt) == ("completed", 1)
    assert task.agent_id != beat.agent_id
    assert await system.broker.depth(work.name) == 0
