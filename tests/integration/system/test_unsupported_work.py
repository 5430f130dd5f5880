"""Two hundred tasks that no agent supports do not delay one that an idle agent does, over the bus and over HTTP."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from chiffon.client import Client
from tests.eventually import eventually
from tests.integration.system.deployment import agent_here, open_system

MANY = 200
SCRIPT = {"script": "echo done"}


@pytest.mark.parametrize("agent_is_first", [True, False], ids=["the-agent-waits", "the-agent-comes-later"])
@pytest.mark.parametrize("way", ["bus", "http"])
async def test_work_that_no_agent_supports_does_not_delay_other_work_and_why_says_so(
    amqp_url: str, ledger_url: str, tmp_path: Path, way: str, agent_is_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    routes = {"shell_script": "infra", "render": "infra"}
    async with open_system(amqp_url, ledger_url, tmp_path, routes=routes) as system:
        url = amqp_url if way == "bus" else f"http://127.0.0.1:{system.settings.port}"
        client = system.client
        if not agent_is_first:
            unsupported = await render(client)
        async with online(client, url, tmp_path / "agent"):
            if agent_is_first:
                unsupported = await render(client)
            async with asyncio.timeout(25):
                task = await client.wait((await client.dispatch("shell_script", SCRIPT)).task_id)
            blockers = (await client.why(unsupported[-1])).blockers

        assert task.status == "completed"
        assert "not_offered" in {blocker.kind for blocker in blockers}
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
        assert {(await client.status(task_id)).attempt for task_id in unsupported} == {0}


async def render(client: Client) -> list[UUID]:
    """Dispatch work that no agent has an executor for."""
    results = await client.dispatch_batch([{"work_type": "render", "parameters": {}} for _ in range(MANY)])
    assert all(result.error is None for result in results)
    return [result.task.task_id for result in results if result.task is not None]


@asynccontextmanager
async def online(client: Client, url: str, state_dir: Path) -> AsyncIterator[None]:
    """Run an agent; it is registered when the block begins."""
    async with agent_here(url, state_dir):

        async def is_online() -> bool:
            return bool(await client.agents(status="online"))

        await eventually(is_online)
        yield
