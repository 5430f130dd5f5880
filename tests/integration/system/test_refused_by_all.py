"""Work that every host refuses waits, says which and why, and runs on the first that does not."""

from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from chiffon.client import Client
from chiffon.models import Blocker
from tests.eventually import eventually
from tests.integration.system.deployment import System, agent_here
from tests.integration.system.process_agents import ended, kinds, online, shell

pytestmark = pytest.mark.xdist_group("system/refused_by_all")

REFUSES_SCRIPTS = """
version = 1

[[rule]]
name = "echo only"
work_type = "echo"
effect = "read"
"""


async def refusals(client: Client, task_id: UUID, count: int) -> Blocker:
    """Return what `why` says of those who refused a task, once there are so many of them."""

    async def all_have() -> Blocker | None:
        found = [blocker for blocker in (await client.why(task_id)).blockers if blocker.kind == "refused"]
        return found[0] if found and len(found[0].agents or ()) >= count else None

    told = await eventually(all_have, timeout=40)
    assert told is not None
    return told


@pytest.mark.parametrize("way", ["bus", "http"])
async def test_work_that_every_host_refuses_stays_queued_until_one_takes_it_or_it_expires_or_is_cancelled(
    orchestrator: System, bus_url: str, tmp_path: Path, way: str
) -> None:
    client = orchestrator.client
    url = bus_url if way == "bus" else client.base_url
    policy = tmp_path / "policy.toml"
    policy.write_text(REFUSES_SCRIPTS)
    names = [f"{way}-{number}" for number in range(3)]
    async with AsyncExitStack() as stack:
        for name in names:
            refusing = agent_here(url, tmp_path / name, name=name, policy_file=policy)
            await stack.enter_async_context(refusing)
        agents = await online(client, *(tmp_path / name for name in names))
        waiting, cancelled = [await shell(client, "echo ran", idempotent=False) for _ in range(2)]
        expiring = await shell(client, "echo ran", expires_after=timedelta(seconds=5))

        told = await refusals(client, waiting, len(names))
        other = await client.dispatch("echo", {"message": "not held up"})
        [echoed] = await ended(client, other.task_id)
        counted = await kinds(client, waiting)
        states = [(await client.status(task_id)).status for task_id in (waiting, cancelled)]
        await client.cancel(cancelled)
        [expired, stopped] = await ended(client, expiring, cancelled)
        await stack.enter_async_context(agent_here(url, tmp_path / "willing", name="willing"))
        [taken] = await online(client, tmp_path / "willing")
        [ran] = await ended(client, waiting, timeout=60)

    assert all(f"by {name} ({agent_id}) " in told.message for name, agent_id in zip(names, agents, strict=True))
    assert "The agent's own policy refuses this" in told.message
    assert states == ["pending", "pending"]
    assert counted["task.requeued"] <= 2 * len(names), "nobody is asked again at once"
    assert echoed.status == "completed"
    assert (stopped.status, expired.status) == ("cancelled", "cancelled")
    assert (expired.error_message or "").startswith("expired")
    assert (ran.status, ran.agent_id, ran.output) == ("completed", taken, "ran\n")
