"""An agent whose clock is off takes no work, which healthy agents run, and two copies of an agent do not both run."""

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from agents.identity.registration import IDENTITY_FILE, AgentRefused
from agents.main import run_agent
from agents.settings import AgentSettings
from chiffon.models import Agent
from tests.eventually import eventually
from tests.fakes.clock import ShiftedClock
from tests.integration.system.deployment import System

HOURS = timedelta(hours=5)


def settings(folder: Path, **values: object) -> AgentSettings:
    given = {"state_dir": folder, "heartbeat_seconds": 0.2, "stop_grace_seconds": 0, "name": folder.name}
    return AgentSettings.load(**{**given, **values})


async def agents_of(system: System, name: str) -> list[Agent]:
    return [agent for agent in await system.client.agents() if agent.hostname == name]


@pytest.mark.parametrize("shift", [HOURS, -HOURS], ids=["ahead", "behind"])
async def test_work_that_may_start_once_runs_on_the_agent_whose_clock_is_right(
    own_system: System, tmp_path: Path, shift: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    stop, clock = asyncio.Event(), ShiftedClock(shift)
    wrong = asyncio.create_task(run_agent(settings(tmp_path / "wrong"), own_system.shared, clock=clock, stop=stop))
    try:

        async def is_known_to_be_off() -> bool:
            return any(agent.clock_off_seconds is not None for agent in await agents_of(own_system, "wrong"))

        await eventually(is_known_to_be_off)
        waiting = await own_system.client.dispatch("echo", {"message": "x"}, idempotent=False)
        why = await own_system.client.why(waiting.task_id)
        await own_system.start_agent(name="right")
        more = [await own_system.client.dispatch("echo", {"message": "x"}, idempotent=False) for _ in range(8)]
        ended = await own_system.finished(waiting.task_id, *(task.task_id for task in more))
        clock.shift = timedelta(0)

        async def is_right() -> bool:
            return all(agent.clock_off_seconds is None for agent in await agents_of(own_system, "wrong"))

        await eventually(is_right)
        [wrong_agent] = await agents_of(own_system, "wrong")
        after = await own_system.client.dispatch("echo", {"message": "x"}, agent_id=wrong_agent.agent_id)
        [back] = await own_system.finished(after.task_id)
    finally:
        stop.set()
        await wrong

    [right_agent] = await agents_of(own_system, "right")
    assert "agent_clock_off" in {blocker.kind for blocker in why.blockers}
    assert {(task.status, task.attempt, task.agent_id) for task in ended} == {("completed", 1, right_agent.agent_id)}
    assert (back.status, back.agent_id) == ("completed", wrong_agent.agent_id)
    assert "agent.clock_off" in {record.msg for record in caplog.records}


async def test_a_process_with_a_copy_of_a_running_agents_state_is_refused_and_ends(
    own_system: System, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await own_system.start_agent(state_dir=tmp_path / "original", name="original", heartbeat_seconds=0.2)

    async def is_online() -> bool:
        return bool(await agents_of(own_system, "original"))

    await eventually(is_online)
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "original" / IDENTITY_FILE, tmp_path / "copy" / IDENTITY_FILE)

    with pytest.raises(AgentRefused, match="earlier process"):
        async with asyncio.timeout(20):
            await run_agent(settings(tmp_path / "copy"), own_system.shared, stop=asyncio.Event())

    task = await own_system.client.dispatch("echo", {"message": "x"})
    [ended] = await own_system.finished(task.task_id)
    [agent] = await agents_of(own_system, "original")
    assert ended.status == "completed"
    assert agent.hostname == "original"
    assert agent.status in ("online", "busy")
    assert {"agent.refused", "agent.two_processes"} <= {record.msg for record in caplog.records}
