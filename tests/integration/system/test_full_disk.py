"""An agent whose disk is full hands work back before anything of it ran: real agents, one on a real full tmpfs."""

import errno
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from chiffon.client import Client
from chiffon.models import Event
from common.errors import ErrorCode
from tests.eventually import eventually
from tests.integration.agents.agent_process import agent_process
from tests.integration.system.deployment import System, agent_here
from tests.integration.system.process_agents import ended, identity, online

pytestmark = pytest.mark.xdist_group("system/full_disk")

SCRIPT = {"script": "echo ran"}
PROGRAM = {"argv": ["cat"], "stdin": "ran\n"}
FILLING, MOST_FILES = "filling", 1000


@pytest.fixture
def way(request: pytest.FixtureRequest, orchestrator: System, bus_url: str) -> str:
    return bus_url if request.param == "bus" else orchestrator.client.base_url


def with_tmpfs(folder: Path, *, options: str) -> Sequence[str]:
    """Return a command that runs another one with a tmpfs of its own on a folder.

    Its mounts are its own, so that the kernel removes the tmpfs with the last process that could see it.
    """
    mount = f'mount -t tmpfs -o mode=700,{options} tmpfs "$0" && exec "$@"'
    return ("unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(folder))


def use_up(disk: Path, content: bytes) -> None:
    """Make files with this content until there is no room for another; empty ones use up the inodes."""
    (disk / FILLING).mkdir()
    for number in range(MOST_FILES):
        try:
            (disk / FILLING / str(number)).write_bytes(content)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return
    raise AssertionError("there is still room")


async def handed_back(client: Client, task_id: UUID) -> Event:
    """Return the first event that says that a task waits again."""

    async def requeued() -> Event | None:
        events = (await client.events(task_id)).items
        return next((event for event in events if event.kind == "task.requeued"), None)

    event = await eventually(requeued, timeout=20)
    assert event is not None
    return event


async def dispatched_once(client: Client, parameters: Mapping[str, Any], **options: Any) -> UUID:
    """Dispatch work that may start once and no more."""
    task_id = uuid4()
    await client.dispatch("shell_script", parameters, task_id=task_id, idempotent=False, max_attempts=1, **options)
    return task_id


# What is full: the options of a tmpfs, with what it is filled, and where below the agent's state it is.
FULL = {
    "no_bytes_for_workspaces": ("size=64k", bytes(4096), "work"),
    "no_inodes_for_workspaces": ("size=1m,nr_inodes=100", b"", "work"),
    "no_bytes_for_all_of_the_state": ("size=256k", bytes(4096), "."),
}


# How work comes to an agent does not change what its disk does to it, so the bus is tried with one disk.
@pytest.mark.parametrize(
    ("way", "what"),
    [("bus", "no_bytes_for_all_of_the_state"), *(("http", what) for what in FULL)],
    indirect=["way"],
)
async def test_work_that_a_full_disk_keeps_from_starting_goes_to_another_agent_without_using_its_attempt(
    orchestrator: System, way: str, what: str, tmp_path: Path
) -> None:
    client, (options, content, below) = orchestrator.client, FULL[what]
    state, other = tmp_path / "full", tmp_path / "other"
    disk = (state / below).resolve()
    disk.mkdir(parents=True)
    async with agent_process(way, state, inside=with_tmpfs(disk, options=options), name="full") as agent:
        [full_id] = await online(client, agent.sees(state))
        use_up(agent.sees(disk), content)

        task_ids = [await dispatched_once(client, parameters) for parameters in (SCRIPT, PROGRAM)]
        returned = [await handed_back(client, task_id) for task_id in task_ids]
        blockers = [(await client.why(task_id)).blockers for task_id in task_ids]
        async with agent_here(way, other, name="other"):
            tasks = await ended(client, *task_ids)
        shutil.rmtree(agent.sees(disk) / FILLING)
        after = await dispatched_once(client, SCRIPT, agent_id=full_id)
        [there] = await ended(client, after)

    for event in returned:
        assert (event.agent_id, event.attempt) == (full_id, 1)
        assert event.data["error_code"] == ErrorCode.RESOURCE_LIMIT
    told = [blocker.message for found in blockers for blocker in found if blocker.kind == "refused"]
    assert len(told) == 2
    assert all("full (" in message and "No space left on device" in message for message in told)
    ran = [(task.status, task.agent_id, task.output) for task in tasks]
    assert ran == [("completed", identity(other), "ran\n")] * 2
    assert (there.status, there.attempt, there.agent_id) == ("completed", 1, full_id)
