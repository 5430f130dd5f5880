"""Work for agents that are processes of their own: dispatch it, and wait for what comes of it."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from agents.identity.registration import IDENTITY_FILE
from chiffon.client import Client
from chiffon.models import TaskStatus
from tests.eventually import eventually
from tests.integration.system import deployment
from tests.unit.agents.test_process import is_gone


async def ended(client: Client, *task_ids: UUID, timeout: float = 40) -> list[TaskStatus]:
    async with asyncio.timeout(timeout):
        return await deployment.ended(client, *task_ids)


async def shell(client: Client, script: str, **options: Any) -> UUID:
    task_id = uuid4()
    await client.dispatch("shell_script", {"script": script}, task_id=task_id, **options)
    return task_id


async def written(client: Client, task_id: UUID, *, lines: int, stream: str = "stdout") -> str:
    """Return what a task has written, once there are so many lines."""

    async def enough() -> str:
        text = (await client.output(task_id, stream=stream)).text
        return text if text.count("\n") >= lines else ""

    return await eventually(enough, timeout=20)


async def kinds(client: Client, task_id: UUID) -> Counter[str]:
    return Counter(event.kind for event in (await client.events(task_id)).items)


def identity(state_dir: Path) -> UUID:
    return UUID(json.loads((state_dir / IDENTITY_FILE).read_text())["agent_id"])


async def all_dead(pids: Sequence[int]) -> None:
    for pid in pids:
        await eventually(partial(is_gone, pid))


async def online(client: Client, *state_dirs: Path) -> list[UUID]:
    """Return the ids of agents once all of them take work."""
    await eventually(lambda: all((folder / IDENTITY_FILE).exists() for folder in state_dirs), timeout=20)
    ids = [identity(folder) for folder in state_dirs]

    async def all_are() -> bool:
        return await deployment.takers(client) >= set(ids)

    await eventually(all_are, timeout=20)
    return ids
