"""Pause, drain, resume and cancel do what they say."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from common.errors import ErrorCode
from common.messages import AgentStatus, CancelTask, ResultStatus
from common.orders import Leave, Pause, Resume
from tests.eventually import eventually
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator


def pause(seconds: float) -> Pause:
    return Pause(until=datetime.now(UTC) + timedelta(seconds=seconds))


async def beats_go_by(orchestrator: ScriptedOrchestrator, *, count: int = 3) -> None:
    """Wait for so many heartbeats: whatever was ordered before them has been read."""
    seen = len(orchestrator.heartbeats)
    await eventually(lambda: len(orchestrator.heartbeats) >= seen + count)


async def test_a_paused_agent_hands_back_what_comes_asks_for_no_more_and_comes_back_by_itself(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent(slots=1)
    # It asks once, before it is paused: what comes then was asked for.
    await eventually(lambda: orchestrator.asks_for_work)
    await orchestrator.order(pause(3600))
    await beats_go_by(orchestrator)
    refused = await orchestrator.dispatch("echo", message="at once")
    later = await orchestrator.dispatch("echo", message="later")

    result = await orchestrator.ended(refused)
    await beats_go_by(orchestrator)

    assert (result.error_code, result.retryable, result.started) == (ErrorCode.AGENT_UNAVAILABLE, True, False)
    assert orchestrator.waiting == [later]

    await orchestrator.order(pause(0.5))

    assert (await orchestrator.ended(later)).status is ResultStatus.COMPLETED


async def test_what_runs_goes_on_during_a_pause(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    await start_agent()
    gate = tmp_path / "gate"
    task = await orchestrator.shell(f"echo running; while [ ! -e {gate} ]; do sleep 0.02; done")
    await eventually(lambda: orchestrator.output(task))

    await orchestrator.order(pause(3600))
    await beats_go_by(orchestrator)
    gate.touch()

    assert (await orchestrator.ended(task)).status is ResultStatus.COMPLETED


async def test_resume_ends_a_pause_early(orchestrator: ScriptedOrchestrator, start_agent: StartAgent) -> None:
    await start_agent()
    await orchestrator.order(pause(3600))
    await beats_go_by(orchestrator)
    task = await orchestrator.dispatch("echo", message="x")
    await orchestrator.order(Resume())

    assert await orchestrator.ended(task)


async def test_a_drained_agent_finishes_what_runs_takes_nothing_new_and_leaves(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    agent = await start_agent(stop_grace_seconds=0)
    gate = tmp_path / "gate"
    running = await orchestrator.shell(f"echo running; while [ ! -e {gate} ]; do sleep 0.02; done")
    await eventually(lambda: orchestrator.output(running))

    await orchestrator.order(orchestrator.drain(note="a new kernel"))
    await eventually(lambda: orchestrator.heartbeats[-1].status is AgentStatus.DRAINING)
    asked_for = orchestrator.credits[-1].limit
    await beats_go_by(orchestrator)
    assert not agent.ended.done()
    gate.touch()

    await asyncio.wait_for(asyncio.shield(agent.ended), 10)
    assert (await orchestrator.ended(running)).status is ResultStatus.COMPLETED
    await eventually(lambda: orchestrator.heartbeats[-1].status is AgentStatus.OFFLINE)
    assert orchestrator.credits[-1].limit == asked_for


async def test_an_idle_agent_that_is_drained_leaves_at_once(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    agent = await start_agent()

    await orchestrator.order(orchestrator.drain())

    await asyncio.wait_for(asyncio.shield(agent.ended), 5)


async def test_a_drain_that_was_meant_for_an_earlier_process_is_not_obeyed(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    agent = await start_agent()
    order = orchestrator.drain()

    await orchestrator.order(order.model_copy(update={"started_at": order.started_at - timedelta(hours=1)}))
    await beats_go_by(orchestrator)
    task = await orchestrator.dispatch("echo", message="x")

    assert (await orchestrator.ended(task)).status is ResultStatus.COMPLETED
    assert not agent.ended.done()


async def test_a_drain_can_be_taken_back_while_something_runs(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    agent = await start_agent()
    gate = tmp_path / "gate"
    running = await orchestrator.shell(f"echo running; while [ ! -e {gate} ]; do sleep 0.02; done")
    await eventually(lambda: orchestrator.output(running))
    await orchestrator.order(orchestrator.drain())
    await eventually(lambda: orchestrator.heartbeats[-1].status is AgentStatus.DRAINING)

    await orchestrator.order(Resume())
    following = await orchestrator.dispatch("echo", message="again")

    assert await orchestrator.ended(following)
    await eventually(lambda: orchestrator.heartbeats[-1].status is AgentStatus.BUSY)
    gate.touch()
    await orchestrator.ended(running)
    assert not agent.ended.done()


async def test_a_cancel_that_overtakes_its_grant_is_obeyed(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    await start_agent()
    orchestrator.is_silent = True
    ran = tmp_path / "ran"
    task = await orchestrator.shell(f"touch {ran}")
    grant = orchestrator.grant_of(task)

    await orchestrator.order(CancelTask(task_id=task, attempt=grant.attempt))
    await beats_go_by(orchestrator)
    await orchestrator.send_grant(grant)

    result = await orchestrator.ended(task)
    assert (result.status, result.started) == (ResultStatus.CANCELLED, False)
    assert not ran.exists()


async def test_an_order_to_leave_that_names_another_process_is_not_obeyed(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    agent = await start_agent()
    await orchestrator.order(Leave(boot_id=uuid4(), reason="an earlier process still runs"))
    await beats_go_by(orchestrator)

    task = await orchestrator.dispatch("echo", message="x")

    assert (await orchestrator.ended(task)).status is ResultStatus.COMPLETED
    assert not agent.ended.done()
