"""A deployment under load: orchestrators and agents are replaced one by one, and nothing is lost or done twice."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from agents.identity.registration import IDENTITY_FILE
from agents.main import run_agent
from agents.settings import AgentSettings
from chiffon.client import NOT_READY, Client
from chiffon.errors import ApiError, ServerUnreachable
from chiffon.models import TaskStatus
from common.config import SharedSettings
from common.messages import AgentStatus
from tests.eventually import eventually
from tests.integration.system import deployment
from tests.integration.system.deployment import open_system
from tests.integration.system.processes import server

LOAD = 4
BACKLOG = 8


@dataclass
class Load:
    """Callers that hand in one task after another, and what they were answered."""

    file: Path
    servers: list[Client]
    accepted: list[UUID] = field(default_factory=list)
    stopped: bool = False
    callers: "list[asyncio.Task[None]]" = field(default_factory=list)

    async def dispatch(self, seconds: float = 0) -> UUID:
        """Hand in work that writes its id into a file; whoever gets no answer asks the next orchestrator."""
        task_id = uuid4()
        script = f"sleep {seconds}; echo $CHIFFON_TASK_ID >> {self.file}"
        while True:
            for client in list(self.servers):
                try:
                    await client.dispatch("shell_script", {"script": script}, task_id=task_id)
                except ServerUnreachable:
                    continue
                except ApiError as error:
                    if error.status != NOT_READY:
                        raise
                    continue
                self.accepted.append(task_id)
                return task_id

    async def run(self) -> None:
        while not self.stopped:
            await eventually(lambda: self.stopped or len(self.accepted) - self.ran() < BACKLOG, timeout=60, every=0.05)
            await self.dispatch()

    def ran(self) -> int:
        """Return how many have run."""
        return self.file.read_bytes().count(b"\n")

    async def stop(self) -> None:
        """Hand in nothing more; returns when everything that was handed in is answered."""
        self.stopped = True
        await asyncio.gather(*self.callers)

    async def passes(self, more: int) -> None:
        """Wait until so many more were accepted."""
        wanted = len(self.accepted) + more
        await eventually(lambda: len(self.accepted) >= wanted, timeout=60)


@asynccontextmanager
async def load(file: Path, *servers: Client) -> AsyncIterator[Load]:
    """Run callers until the block ends."""
    file.touch()
    running = Load(file, list(servers))
    running.callers = [asyncio.create_task(running.run()) for _ in range(LOAD)]
    try:
        yield running
    finally:
        running.stopped = True
        for caller in running.callers:
            caller.cancel()
        await asyncio.gather(*running.callers, return_exceptions=True)


@asynccontextmanager
async def agent(broker_url: str, folder: Path) -> AsyncIterator[tuple[UUID, "asyncio.Task[None]"]]:
    """Run an agent until it leaves by itself, at the latest until the block ends."""
    stop = asyncio.Event()
    settings = AgentSettings(state_dir=folder, heartbeat_seconds=0.5, slots=4)
    running = asyncio.create_task(run_agent(settings, SharedSettings(broker_url=broker_url), stop=stop))
    try:
        await eventually((folder / IDENTITY_FILE).exists)
        yield _identity(folder), running
    finally:
        stop.set()
        await running


def _identity(folder: Path) -> UUID:
    return UUID(json.loads((folder / IDENTITY_FILE).read_text(encoding="utf-8"))["agent_id"])


async def ended(client: Client, ids: list[UUID]) -> list[TaskStatus]:
    """Return the tasks once all have ended."""
    async with asyncio.timeout(90):
        return await deployment.ended(client, *ids)


async def check(client: Client, load: Load) -> None:
    """Everything that was accepted ran once, and its one result was stored."""
    tasks = await ended(client, load.accepted)
    assert Counter((task.status, task.attempt) for task in tasks) == {("completed", 1): len(load.accepted)}
    written = Counter(load.file.read_text(encoding="utf-8").split())
    assert written == Counter(map(str, load.accepted))
    pages = [await client.events(task.task_id, limit=50) for task in tasks]
    kinds = Counter(event.kind for page in pages for event in page.items)
    for kind in ("task.dispatched", "task.claimed", "task.completed"):
        assert kinds[kind] == len(load.accepted)
    assert kinds["task.result_refused"] == kinds["task.requeued"] == 0
    assert (await client.dead_letters()).items == []


async def test_a_new_orchestrator_replaces_the_old_one_under_load(
    amqp_url: str, ledger_url: str, tmp_path: Path
) -> None:
    async with (
        server(amqp_url, ledger_url, tmp_path) as old,
        agent(amqp_url, tmp_path / "agent"),
        load(tmp_path / "ran", old.client) as callers,
    ):
        await callers.passes(8)
        async with server(amqp_url, ledger_url, tmp_path) as new:
            callers.servers.append(new.client)
            await callers.passes(8)
            running = [await callers.dispatch(seconds=2) for _ in range(2)]
            await eventually(lambda: _any_is(new.client, running, "running"))

            assert await old.terminate() == 0
            await callers.passes(8)
            await callers.stop()
            await check(new.client, callers)


async def _any_is(client: Client, ids: list[UUID], status: str) -> bool:
    return any([(await client.status(task_id)).status == status for task_id in ids])


async def test_agents_are_replaced_by_drain_under_load(amqp_url: str, ledger_url: str, tmp_path: Path) -> None:
    async with (
        open_system(amqp_url, ledger_url, tmp_path) as one,
        agent(amqp_url, tmp_path / "old") as (old_id, old_running),
        load(tmp_path / "ran", one.client) as callers,
    ):
        await callers.passes(8)
        running = [await callers.dispatch(seconds=2) for _ in range(2)]
        await eventually(lambda: _any_is(one.client, running, "running"))

        async with agent(amqp_url, tmp_path / "new") as (new_id, _):
            drained = await one.client.drain_agent(old_id, note="new version")
            async with asyncio.timeout(30):
                await old_running
            await callers.passes(8)

            assert (drained.draining, drained.drain_note) == (True, "new version")
            await eventually(lambda: _is_gone(one.client, old_id))
            last = await ended(one.client, [await callers.dispatch()])
            assert last[0].agent_id == new_id

            async with agent(amqp_url, tmp_path / "old") as (again_id, _):
                assert again_id == old_id
                await eventually(lambda: _takes_work(one.client, old_id))
                await callers.stop()
                await check(one.client, callers)


async def _is_gone(client: Client, agent_id: UUID) -> bool:
    found = {agent.agent_id: agent for agent in await client.agents()}[agent_id]
    return found.status is AgentStatus.OFFLINE and found.draining


async def _takes_work(client: Client, agent_id: UUID) -> bool:
    found = {agent.agent_id: agent for agent in await client.agents()}[agent_id]
    return found.status is not AgentStatus.OFFLINE and not found.draining
