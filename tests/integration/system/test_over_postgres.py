"""A whole Chiffon with PostgreSQL alone: the ledger is the message bus, and orchestrator and agents are processes."""

from pathlib import Path

import pytest

from common.broker.connect import open_broker
from common.broker.topology import work_queue
from tests.eventually import eventually
from tests.integration.agents.agent_process import agent_process
from tests.integration.system.process_agents import all_dead, ended, identity, shell, written
from tests.integration.system.processes import server


@pytest.mark.own_ledger
async def test_an_agent_that_is_killed_loses_nothing_and_no_message_is_left(
    ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIFFON_LEASE_SECONDS", "2")
    starts, gate = tmp_path / "starts", tmp_path / "gate"
    script = f"echo $CHIFFON_ATTEMPT >> {starts}; echo $$; while [ ! -e {gate} ]; do sleep 0.05; done; echo end"
    async with server(ledger_url, ledger_url, tmp_path) as running:
        async with agent_process(ledger_url, tmp_path / "first", slots=1) as first:
            task_id = await shell(running.client, script, idempotent=True)
            pid = int(await written(running.client, task_id, lines=1))
            others = [await shell(running.client, f"echo {number}") for number in range(3)]
            await first.kill()
        async with agent_process(ledger_url, tmp_path / "next", slots=1):
            gate.touch()
            tasks = await ended(running.client, task_id, *others)
            await eventually(lambda: starts.read_text().split() == ["1", "2"])

            queues = [work_queue("infra", identity(tmp_path / name)).name for name in ("first", "next")]

            async def are_empty() -> bool:
                return [await broker.depth(queue) for queue in queues] == [0, 0]

            async with open_broker(ledger_url, name="test") as broker:
                await eventually(are_empty)

    await all_dead([pid])
    assert [(task.status, task.attempt) for task in tasks] == [("completed", 2), *[("completed", 1)] * 3]
