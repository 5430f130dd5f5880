"""Work that owns its end comes to it when its lease is lost, and when its agent leaves."""

import asyncio
from pathlib import Path

import pytest

from agents import agent
from agents.repairs.settler import Settler
from agents.repairs.state import Unit
from agents.repairs.store import Store
from agents.repairs.work import Work
from tests.eventually import eventually
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator
from tests.unit.agents.repairs.test_rules import make_unit

EXECUTORS = ["tests.integration.agents.owning:Owning"]


async def test_it_ends_when_its_lease_is_lost_although_nobody_renews_it(
    start_agent: StartAgent, orchestrator: ScriptedOrchestrator
) -> None:
    orchestrator.lease_seconds, orchestrator.renews = 1.0, False
    await start_agent(executors=EXECUTORS)

    result = await orchestrator.ended(await orchestrator.dispatch("owning"))

    assert (result.error_message, result.exit_code) == ("Taken back.", 0)


async def test_an_agent_that_leaves_waits_for_its_end(
    start_agent: StartAgent, orchestrator: ScriptedOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "REPORT_SECONDS", 0.5)
    running = await start_agent(executors=EXECUTORS, kill_grace_seconds=0.1)
    task = await orchestrator.dispatch("owning")
    await eventually(lambda: orchestrator.output(task) == "begun\n")

    running.stop.set()
    await running.ended

    result = orchestrator.result(task)
    assert result is not None
    assert (result.error_message, result.exit_code) == ("Taken back.", 0)


async def test_an_agent_that_leaves_does_not_wait_for_ever(
    start_agent: StartAgent, orchestrator: ScriptedOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "REPORT_SECONDS", 0.1)
    monkeypatch.setattr(agent, "LASTING_SECONDS", 0.1)
    running = await start_agent(executors=EXECUTORS, kill_grace_seconds=0.1)
    task = await orchestrator.dispatch("owning", seconds=600)
    await eventually(lambda: orchestrator.output(task) == "begun\n")

    running.stop.set()
    await running.ended

    assert orchestrator.result(task) is None


async def test_an_agent_that_leaves_waits_for_what_it_undoes_of_an_earlier_life(
    start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, undone = asyncio.Event(), asyncio.Event(), list[str]()
    leave = Settler.leave

    async def take_back(work: Work, _cause: str) -> Unit:
        begun.set()
        await may_end.wait()
        undone.append(work.unit.service)
        return work.unit

    async def left(settler: Settler, *, within: float) -> None:
        may_end.set()
        await leave(settler, within=within)

    monkeypatch.setattr("agents.repairs.settler.take_back", take_back)
    monkeypatch.setattr(Settler, "leave", left)
    store = Store.below(tmp_path / "agent")
    store.open()
    store.write(make_unit())

    running = await start_agent()
    await begun.wait()
    running.stop.set()
    await running.ended

    assert undone == ["web"]
