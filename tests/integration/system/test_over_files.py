"""A whole Chiffon over a directory: a real orchestrator and real agents, each a process, and no message bus."""

from pathlib import Path
from uuid import uuid4

import pytest

from tests.eventually import eventually
from tests.integration.agents.agent_process import agent_process
from tests.integration.system.process_agents import all_dead, ended, shell, written
from tests.integration.system.processes import server


async def test_tasks_run_over_a_directory_and_nothing_is_left_in_it(ledger_url: str, tmp_path: Path) -> None:
    bus = (tmp_path / "bus").as_uri()
    async with server(bus, ledger_url, tmp_path) as running, agent_process(bus, tmp_path / "agent", slots=4):
        tasks = [uuid4() for _ in range(10)]
        for number, task_id in enumerate(tasks):
            await running.client.dispatch("echo", {"message": str(number)}, task_id=task_id)
        done = await ended(running.client, *tasks)
        outputs = [task.output for task in done]

    assert [task.status for task in done] == ["completed"] * 10
    assert outputs == [str(number) for number in range(10)]
    assert list((tmp_path / "bus").glob("queues/work.infra/*/*.*")) == []


async def test_an_agent_that_is_killed_loses_nothing(
    ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIFFON_LEASE_SECONDS", "2")
    bus, starts, gate = (tmp_path / "bus").as_uri(), tmp_path / "starts", tmp_path / "gate"
    script = f"echo $CHIFFON_ATTEMPT >> {starts}; echo $$; while [ ! -e {gate} ]; do sleep 0.05; done; echo end"
    async with server(bus, ledger_url, tmp_path) as running:
        async with agent_process(bus, tmp_path / "first", slots=1) as first:
            task_id = await shell(running.client, script, idempotent=True)
            pid = int(await written(running.client, task_id, lines=1))
            others = [await shell(running.client, f"echo {number}") for number in range(3)]
            await first.kill()
        async with agent_process(bus, tmp_path / "next", slots=1):
            gate.touch()
            tasks = await ended(running.client, task_id, *others)
            await eventually(lambda: starts.read_text().split() == ["1", "2"])

    await all_dead([pid])
    assert [(task.status, task.attempt) for task in tasks] == [("completed", 2), *[("completed", 1)] * 3]
