"""An agent registers, stops without losing anything, and refuses to start twice."""

import asyncio
import os
from pathlib import Path
from uuid import uuid4

import pytest

from agents.disk.journal import Journal
from agents.disk.journal_file import JournalFile
from agents.executors.registry import ExecutorUnusable
from agents.identity.registration import CopyOfRunningAgent, IdentityInUse
from agents.main import run_agent
from agents.processes.life import own_life
from agents.settings import AgentSettings
from common.broker.base import Broker
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from common.errors import ErrorCode
from common.messages import AgentStatus, ResultStatus
from tests.eventually import eventually
from tests.factories import make_grant
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator


async def test_the_first_heartbeat_registers_the_agent(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent(name="a-host", slots=3)

    first = orchestrator.heartbeats[0]
    assert (first.agent_type, first.hostname, first.slots) == ("infra", "a-host", 3)
    assert first.work_types == ["echo", "metrics", "shell_script"]
    assert first.status is AgentStatus.ONLINE
    assert 0 < first.resources.memory_percent <= 100
    await eventually(lambda: len(orchestrator.heartbeats) >= 3)


async def test_an_agent_touches_no_work_and_asks_for_none_before_its_registration_was_answered(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, broker: Broker
) -> None:
    orchestrator.hears = False
    await start_agent(slots=2)
    await eventually(lambda: orchestrator.heartbeats)
    await orchestrator.send_grant(make_grant(claim_id=uuid4()))
    beats = len(orchestrator.heartbeats)
    await eventually(lambda: len(orchestrator.heartbeats) >= beats + 3)
    waiting, limit = await broker.depth(orchestrator.work_queue), orchestrator.credits[-1].limit

    orchestrator.hears = True
    task_id = await orchestrator.dispatch("echo", message="x")
    await orchestrator.ended(task_id)

    assert (waiting, limit) == (1, 0)
    assert await broker.depth(orchestrator.work_queue) == 0


OWN = "tests.unit.agents.executor_classes:Labelled"


async def test_a_type_of_ones_own_is_announced_until_the_orchestrator_has_answered(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    orchestrator.hears = False
    await start_agent(executors=[OWN], labels={"zone": "eu"})
    await eventually(lambda: len(orchestrator.heartbeats) >= 3)
    unheard = list(orchestrator.heartbeats)
    orchestrator.hears = True

    await eventually(lambda: not orchestrator.heartbeats[-1].schemas)

    assert all(beat.schemas.keys() == {"labelled"} for beat in unheard)
    assert "labelled" in orchestrator.heartbeats[-1].work_types
    labels = orchestrator.heartbeats[-1].labels
    assert (labels["renders"], labels["zone"]) == (True, "eu")


async def test_built_in_types_are_announced_by_name_only(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent()

    assert [beat.schemas for beat in orchestrator.heartbeats] == [{} for _ in orchestrator.heartbeats]


async def test_an_executor_that_cannot_be_used_is_named_before_anything_starts(tmp_path: Path) -> None:
    settings = AgentSettings(state_dir=tmp_path / "agent", executors=["no.such.module:Class"])

    with pytest.raises(ExecutorUnusable, match=r"\[agent\] executors: 'no.such.module:Class'"):
        await run_agent(settings, SharedSettings(broker_url="memory://"), stop=asyncio.Event())

    assert not (tmp_path / "agent").exists()


async def test_the_heartbeat_names_what_runs(orchestrator: ScriptedOrchestrator, start_agent: StartAgent) -> None:
    await start_agent(slots=1)
    task = await orchestrator.shell("sleep 60")

    beat = await eventually(lambda: next((b for b in orchestrator.heartbeats if b.current_tasks), None))

    assert beat is not None
    assert (beat.current_tasks, beat.status) == ([task], AgentStatus.BUSY)


async def test_a_stopping_agent_finishes_what_ends_in_time_and_asks_for_nothing_new(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    agent = await start_agent(slots=2, stop_grace_seconds=30)
    gate = tmp_path / "gate"
    running = await orchestrator.shell(f"echo running; while [ ! -e {gate} ]; do sleep 0.02; done")
    await eventually(lambda: orchestrator.output(running))
    agent.stop.set()
    await eventually(lambda: orchestrator.heartbeats[-1].status is AgentStatus.DRAINING)
    asked_for = orchestrator.credits[-1].limit
    gate.touch()

    await agent.ended

    result = await orchestrator.ended(running)
    assert result.status is ResultStatus.COMPLETED
    await eventually(lambda: orchestrator.heartbeats[-1].status is AgentStatus.OFFLINE)
    assert {credit.limit for credit in orchestrator.credits[-2:]} == {asked_for}


async def test_a_stopping_agent_hands_back_what_was_granted_before_it_said_so_and_comes_later(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    agent = await start_agent()
    await eventually(lambda: orchestrator.credits)
    orchestrator.is_silent = True
    task_id = await orchestrator.dispatch("echo", message="x")
    grant = orchestrator.grant_of(task_id)
    orchestrator.account.granted += 1

    agent.stop.set()
    await eventually(lambda: AgentStatus.DRAINING in {beat.status for beat in orchestrator.heartbeats})
    await orchestrator.send_grant(grant)
    result = await orchestrator.ended(task_id)
    await agent.ended

    assert (result.status, result.started, result.attempt) == (ResultStatus.FAILED, False, grant.attempt)
    assert orchestrator.heartbeats[-1].status is AgentStatus.OFFLINE


async def test_a_stopping_agent_hands_back_what_does_not_end_in_time(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    agent = await start_agent(stop_grace_seconds=0.1, kill_grace_seconds=0.3)
    task = await orchestrator.shell("trap '' TERM; echo $$; while :; do sleep 0.05; done")
    await eventually(lambda: orchestrator.output(task).endswith("\n"))

    agent.stop.set()
    await agent.ended

    result = await orchestrator.ended(task)
    assert (result.status, result.error_code) == (ResultStatus.FAILED, ErrorCode.AGENT_UNAVAILABLE)
    assert result.retryable
    assert "agent stopped" in str(result.error_message)
    pid = int(orchestrator.output(task))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_grant_that_comes_while_the_agent_stops_is_handed_back(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    agent = await start_agent(stop_grace_seconds=60)
    gate = tmp_path / "gate"
    running = await orchestrator.shell(f"echo running; while [ ! -e {gate} ]; do sleep 0.02; done")
    await eventually(lambda: orchestrator.output(running))
    orchestrator.is_silent = True
    task = await orchestrator.shell("sleep 60")
    agent.stop.set()
    await eventually(lambda: orchestrator.heartbeats[-1].status is AgentStatus.DRAINING)
    await orchestrator.send_grant(orchestrator.grant_of(task))

    result = await orchestrator.ended(task)

    assert (result.error_code, result.retryable, result.started) == (ErrorCode.AGENT_UNAVAILABLE, True, False)
    assert not agent.ended.done()
    gate.touch()
    await agent.ended


async def test_an_idle_agent_stops_at_once(orchestrator: ScriptedOrchestrator, start_agent: StartAgent) -> None:
    agent = await start_agent(stop_grace_seconds=3600)
    agent.stop.set()

    await asyncio.wait_for(agent.ended, 5)

    await eventually(lambda: orchestrator.heartbeats[-1].status is AgentStatus.OFFLINE)


async def test_a_restarted_agent_is_the_same_agent(orchestrator: ScriptedOrchestrator, start_agent: StartAgent) -> None:
    first = await start_agent()
    first.stop.set()
    await first.ended
    await eventually(lambda: orchestrator.heartbeats[-1].status is AgentStatus.OFFLINE)

    await start_agent()
    await eventually(lambda: orchestrator.heartbeats[-1].status is AgentStatus.ONLINE)

    assert len({beat.agent_id for beat in orchestrator.heartbeats}) == 1


async def test_two_agents_cannot_share_their_state(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, broker: Broker, tmp_path: Path
) -> None:
    await start_agent()
    again = AgentSettings.load(state_dir=tmp_path / "agent")

    with pytest.raises(IdentityInUse, match="CHIFFON_AGENT_STATE_DIR"):
        await run_agent(again, SharedSettings(broker_url="memory://"), broker=broker, stop=asyncio.Event())


async def test_an_agent_whose_journal_names_a_process_that_runs_does_not_start(tmp_path: Path) -> None:
    state, life, stop = tmp_path / "agent", own_life(), asyncio.Event()
    state.mkdir(mode=0o700)
    with Journal(JournalFile(state / "journal.jsonl"), session=uuid4(), host_boot_id=life.host_boot_id) as journal:
        journal.started(
            make_grant(),
            host_boot_id=life.host_boot_id,
            agent_pid=life.pid,
            agent_ticks=life.start_ticks,
            pid_namespace=life.pid_namespace,
        )
    stop.set()

    with pytest.raises(CopyOfRunningAgent, match=f"still runs, as process {life.pid}"):
        await run_agent(
            AgentSettings.load(state_dir=state),
            SharedSettings(broker_url="memory://"),
            broker=MemoryBroker(),
            stop=stop,
        )
