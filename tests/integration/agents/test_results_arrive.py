"""A result reaches the ledger, whatever stands between."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

import agents.agent
from common.broker.base import Outgoing
from common.broker.memory import MemoryBroker
from common.messages import ResultStatus
from common.protocol import WorkResults, decode
from tests.eventually import eventually
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator
from tests.integration.agents.test_broker_away import Cable, running
from tests.on_disk import watched_disk
from tests.spooled import spooled


class Recording(Cable):
    """Notes whose results the agent publishes, in their order."""

    def __init__(self, far: MemoryBroker) -> None:
        super().__init__(far)
        self.results: list[UUID] = []

    async def publish(self, *messages: Outgoing) -> None:
        for payload in (decode(message.body).payload for message in messages):
            if isinstance(payload, WorkResults):
                self.results += [result.payload.task_id for result in payload.results]
        await super().publish(*messages)


async def test_a_stored_result_is_on_disk_no_more(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    await start_agent()
    task = await orchestrator.dispatch("echo", message="x")

    await orchestrator.ended(task)

    await eventually(lambda: spooled(tmp_path / "agent") == [])


async def test_a_result_that_nobody_stores_comes_again_and_holds_up_no_slot(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    orchestrator.stores = False
    await start_agent(slots=1, result_resend_seconds=0.2)
    first = await orchestrator.dispatch("echo", message="first")
    second = await orchestrator.dispatch("echo", message="second")

    await eventually(lambda: len(orchestrator.results[first]) >= 2)
    await eventually(lambda: len(orchestrator.results[second]) >= 2)
    assert orchestrator.results[first][0] == orchestrator.results[first][1]
    assert len(spooled(tmp_path / "agent")) == 2
    orchestrator.stores = True

    await eventually(lambda: spooled(tmp_path / "agent") == [])


async def test_a_task_whose_result_is_sent_is_renewed_no_more(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents.agent, "STORED_SECONDS", 0.2)
    orchestrator.stores = False
    orchestrator.lease_seconds = 0.6
    await start_agent()
    task = await orchestrator.dispatch("echo", message="x")
    await eventually(lambda: orchestrator.results[task])
    beats = len(orchestrator.heartbeats)

    await eventually(lambda: len(orchestrator.heartbeats) > beats + 3)

    assert orchestrator.heartbeats[-1].current_tasks == []
    assert orchestrator.renewals == []


async def test_a_leaving_agent_waits_a_moment_for_its_last_result_and_leaves_it_on_disk(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents.agent, "STORED_SECONDS", 0.2)
    orchestrator.stores = False
    agent = await start_agent()
    task = await orchestrator.dispatch("echo", message="x")
    await eventually(lambda: orchestrator.results[task])
    agent.stop.set()
    await asyncio.wait_for(asyncio.shield(agent.ended), 10)
    assert len(spooled(tmp_path / "agent")) == 1

    orchestrator.stores = True
    await start_agent()

    await eventually(lambda: len(orchestrator.results[task]) == 2)
    await eventually(lambda: spooled(tmp_path / "agent") == [])


async def test_what_an_earlier_life_owed_is_sent_before_anything_new_is_begun(
    broker: MemoryBroker, orchestrator: ScriptedOrchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents.agent, "STORED_SECONDS", 0.2)
    orchestrator.stores = False
    async with running(Cable(broker), tmp_path / "agent", asyncio.Event()):
        task = await orchestrator.dispatch("echo", message="owed")
        await eventually(lambda: orchestrator.results[task])
    following = await orchestrator.dispatch("echo", message="new")
    orchestrator.stores = True
    recording = Recording(broker)

    async with running(recording, tmp_path / "agent", asyncio.Event()):
        await orchestrator.ended(following)

    assert recording.results == [task, following]


async def test_what_could_not_be_reported_before_the_end_is_reported_by_the_next_life_with_all_its_output(
    broker: MemoryBroker, orchestrator: ScriptedOrchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents.agent, "REPORT_SECONDS", 0.2)
    monkeypatch.setattr(agents.agent, "STORED_SECONDS", 0.2)
    cable, stop = Cable(broker), asyncio.Event()
    gate = tmp_path / "gate"
    async with running(cable, tmp_path / "agent", stop) as ended:
        task = await orchestrator.shell(f"echo before; while [ ! -e {gate} ]; do sleep 0.02; done; seq 1 90000")
        await eventually(lambda: orchestrator.output(task) == "before\n")
        cable.is_cut = True
        gate.touch()
        await eventually(lambda: spooled(tmp_path / "agent"))
        stop.set()
        await asyncio.wait_for(asyncio.shield(ended), 10)
    assert orchestrator.result(task) is None

    async with running(Cable(broker), tmp_path / "agent", asyncio.Event()):
        result = await orchestrator.ended(task)

        assert result.status is ResultStatus.COMPLETED
        assert orchestrator.output(task) == "before\n" + "".join(f"{number}\n" for number in range(1, 90_001))


async def test_a_full_disk_costs_neither_the_result_nor_the_agent(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await start_agent()
    spool = tmp_path / "agent" / "spool"
    spool.rmdir()
    spool.write_text("in the way, as a full disk would be")

    first = await orchestrator.dispatch("echo", message="first")
    await orchestrator.ended(first)
    second = await orchestrator.dispatch("echo", message="second")

    assert (await orchestrator.ended(second)).status is ResultStatus.COMPLETED
    assert "spool.failed" in caplog.text
    beats = len(orchestrator.heartbeats)
    await eventually(lambda: len(orchestrator.heartbeats) > beats)


async def test_a_broken_file_in_the_spool_does_not_keep_an_agent_from_starting(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    spool = tmp_path / "agent" / "spool"
    spool.mkdir(parents=True)
    (spool / "half.json").write_bytes(b'{"half')

    await start_agent()
    task = await orchestrator.dispatch("echo", message="x")

    assert await orchestrator.ended(task)
    assert [path.name for path in (spool / "unreadable").iterdir()] == ["half.json"]


async def test_all_that_an_agent_needs_again_is_on_disk_by_name_and_content_before_it_works(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents.agent, "STORED_SECONDS", 0.2)
    state = tmp_path / "agent"
    orchestrator.stores = False
    with watched_disk() as disk:
        await start_agent()
        identity, journal = disk.read(state / "identity.json"), disk.read(state / "journal.jsonl")
        task = await orchestrator.dispatch("echo", message="kept")
        await orchestrator.ended(task)
        [path] = await eventually(lambda: list((state / "spool").glob("*.jsonl")))
        await eventually(lambda: str(task).encode() in (disk.read(path) or b""))

    assert disk.has(state)
    assert disk.has(state / "spool")
    assert str(orchestrator.agent_id).encode() in (identity or b"")
    assert b'"opened"' in (journal or b"")
