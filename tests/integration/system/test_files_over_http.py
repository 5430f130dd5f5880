"""Agents over HTTP keep files and get those that other work kept: a real orchestrator and real agents."""

from pathlib import Path

import pytest

from agents.artifacts.spool import INDEX
from tests.eventually import eventually
from tests.integration.agents.agent_process import agent_process
from tests.integration.system.deployment import System
from tests.integration.system.process_agents import ended, kinds

pytestmark = pytest.mark.xdist_group("system/over_http")

# So rarely that what is not stored by the first try stays owed as long as a test waits.
RESEND_SECONDS = 3600


async def test_a_file_goes_from_the_agent_that_keeps_it_to_the_one_whose_work_needs_it(
    orchestrator: System, tmp_path: Path
) -> None:
    client = orchestrator.client
    make = "head -c 300000 /dev/urandom > out/data.bin; sha256sum < out/data.bin; echo note > out/note.txt"
    async with agent_process(client.base_url, tmp_path / "agent", result_resend_seconds=RESEND_SECONDS):
        made = await client.dispatch(
            "shell_script",
            {"script": make, "files": {"out/.keep": {"text": ""}}, "artifacts": ["out/*.bin", "out/*.txt"]},
        )
        needs = {
            "in/data.bin": {"task": str(made.task_id), "artifact": "out/data.bin"},
            "in/note.txt": {"task": str(made.task_id), "artifact": "out/note.txt"},
        }
        await ended(client, made.task_id)
        used = await client.dispatch(
            "shell_script", {"script": "sha256sum < in/data.bin; cat in/note.txt", "files": needs}
        )
        tasks = await ended(client, made.task_id, used.task_id)
        # Told over HTTP that they are stored, the agent owes none of them any more.
        await eventually(lambda: owes_nothing(tmp_path / "agent"))

    [first, second] = [(await client.output(task.task_id)).text.splitlines() for task in tasks]
    assert [(task.status, task.error_message) for task in tasks] == [("completed", None)] * 2
    assert second == [*first, "note"]
    assert (await kinds(client, made.task_id))["artifact.stored"] == 2


async def test_a_file_that_no_task_kept_fails_the_work_that_needs_it_with_the_reason(
    orchestrator: System, tmp_path: Path
) -> None:
    client = orchestrator.client
    async with agent_process(client.base_url, tmp_path / "agent"):
        needs = {"in/data.bin": {"upload": "0" * 64}}
        work = await client.dispatch("shell_script", {"script": "cat in/data.bin", "files": needs}, max_attempts=1)
        [task] = await ended(client, work.task_id)

    assert task.status == "failed"
    assert task.error_message is not None
    assert "Nothing with the SHA-256" in task.error_message


def owes_nothing(state_dir: Path) -> bool:
    """Whether no file waits in the state directory."""
    folder = state_dir / "artifacts"
    return [path.name for path in folder.iterdir()] == [INDEX] and (folder / INDEX).read_bytes() == b""
