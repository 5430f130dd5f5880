"""Two processes of one agent over HTTP: the later one is refused and says why, and nothing runs twice.

The earlier one is this process.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from agents.identity.registration import IDENTITY_FILE
from agents.processes.life import BOOT_ID
from chiffon.client import Client
from tests.integration.agents.agent_process import agent_process
from tests.integration.system.deployment import System, agent_here
from tests.integration.system.process_agents import ended, identity, shell, written

# More than both processes have slots.
TASKS = 8

pytestmark = pytest.mark.xdist_group("system/two_processes")


async def held(client: Client, gate: Path, starts: Path, **options: object) -> UUID:
    """Start work that ends when the gate is there, and return when it runs."""
    script = f"echo start >> {starts}; echo running; while [ ! -e {gate} ]; do sleep 0.05; done; echo end"
    task_id = await shell(client, script, **options)
    await written(client, task_id, lines=1)
    return task_id


async def test_a_second_process_with_the_same_state_directory_is_refused_and_the_first_goes_on(
    orchestrator: System, tmp_path: Path
) -> None:
    client, gate, starts = orchestrator.client, tmp_path / "gate", tmp_path / "starts"
    async with agent_here(client.base_url, tmp_path / "agent"):
        task_id = await held(client, gate, starts)
        async with agent_process(client.base_url, tmp_path / "agent") as second:
            code = await second.ended()
        gate.touch()
        [task] = await ended(client, task_id)

    assert code != 0
    assert f"Another agent is running with the state in {tmp_path / 'agent'}" in second.log
    assert (task.status, task.attempt, starts.read_text()) == ("completed", 1, "start\n")


def with_its_identity(original: Path, copy: Path) -> None:
    copy.mkdir()
    shutil.copy(original / IDENTITY_FILE, copy)


def with_all_its_state(original: Path, copy: Path) -> None:
    shutil.copytree(original, copy)


def on_another_host(original: Path, copy: Path) -> None:
    """Copy as a cloned machine would: the journal is that of another run of the kernel."""
    shutil.copytree(original, copy)
    journal, here = copy / "journal.jsonl", BOOT_ID.read_text().strip()
    text = journal.read_text()
    assert here in text
    journal.write_text(text.replace(here, str(UUID(int=0))))


# What the later one says at its end.
MESSAGES: dict[Callable[[Path, Path], None], str] = {
    with_its_identity: "The orchestrator refused this agent: an earlier process with the same agent id still runs",
    with_all_its_state: "so this is a copy of its state",
    on_another_host: "The orchestrator refused this agent: an earlier process with the same agent id still runs",
}


@pytest.mark.parametrize("copied", MESSAGES)
async def test_of_two_processes_with_one_identity_the_later_is_refused_and_nothing_runs_twice(
    orchestrator: System, tmp_path: Path, copied: Callable[[Path, Path], None]
) -> None:
    client, gate, starts = orchestrator.client, tmp_path / "gate", tmp_path / "starts"
    async with agent_here(client.base_url, tmp_path / "agent", slots=2, name="original"):
        running = await held(client, gate, starts, idempotent=True)
        copied(tmp_path / "agent", tmp_path / "copy")
        async with agent_process(
            client.base_url, tmp_path / "copy", slots=2, name="copy", stop_grace_seconds=30
        ) as copy:
            ids = [await shell(client, f"echo {number} >> {starts}", idempotent=True) for number in range(TASKS)]
            code = await copy.ended()
        gate.touch()
        later = await shell(client, f"echo later >> {starts}")
        tasks = await ended(client, running, *ids, later)
        [agent] = [agent for agent in await client.agents() if agent.agent_id == identity(tmp_path / "agent")]

    assert code != 0
    assert MESSAGES[copied] in copy.log
    assert {task.status for task in tasks} == {"completed"}
    # By what ran, and not by attempts: one that the later process was given as it left goes back untouched.
    assert Counter(starts.read_text().split()) == Counter(["start", *map(str, range(TASKS)), "later"])
    assert (agent.hostname, agent.status == "offline") == ("original", False)
