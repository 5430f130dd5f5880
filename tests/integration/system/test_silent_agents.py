"""An agent dies without a word, and work is leased to it before anything shows that it is gone."""

from pathlib import Path
from uuid import UUID

import aio_pika
import pytest

from chiffon.client import Client
from tests.eventually import eventually
from tests.integration.agents.agent_process import agent_process
from tests.integration.system.deployment import agent_here, open_system
from tests.integration.system.process_agents import ended, identity, shell
from tests.services.rabbitmq_node import Node


@pytest.fixture(params=["rabbitmq", "postgresql"])
def bus(request: pytest.FixtureRequest, rabbitmq: Node, ledger_url: str) -> str:
    return rabbitmq.new_vhost_url() if request.param == "rabbitmq" else ledger_url


@pytest.mark.own_ledger
async def test_work_that_was_leased_to_an_agent_that_had_died_runs_once_and_without_waiting_for_the_lease(
    bus: str, ledger_url: str, tmp_path: Path
) -> None:
    patience = {"agent_offline_after_seconds": 5, "lease_seconds": 600}
    starts = tmp_path / "starts"
    async with open_system(bus, ledger_url, tmp_path, **patience) as running:
        async with agent_process(bus, tmp_path / "first", slots=2) as first:
            # With the result of a task it asks for as many as it has slots.
            await ended(running.client, await shell(running.client, "true"))
            await first.kill()
            await eventually(lambda: _is_deserted(bus, identity(tmp_path / "first")))
            tasks = [await shell(running.client, f"echo $CHIFFON_TASK_ID >> {starts}") for _ in range(2)]
            await eventually(lambda: _run_by(running.client, tmp_path / "first", *tasks))
        async with agent_here(bus, tmp_path / "next", slots=2):
            done = await ended(running.client, *tasks)

    assert [(task.status, task.agent_id) for task in done] == [("completed", identity(tmp_path / "next"))] * 2
    assert sorted(starts.read_text().split()) == sorted(map(str, tasks))


async def _is_deserted(bus: str, agent_id: UUID) -> bool:
    """Say whether nothing is delivered to an agent any more; PostgreSQL delivers nothing that is not fetched."""
    if not bus.startswith("amqp"):
        return True
    async with await aio_pika.connect(bus) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(f"work.infra.{agent_id}", passive=True)
        return not queue.declaration_result.consumer_count


async def _run_by(client: Client, state_dir: Path, *tasks: UUID) -> bool:
    """Say whether the ledger has leased tasks to an agent."""
    statuses = [await client.status(task) for task in tasks]
    return [(task.status, task.agent_id) for task in statuses] == [("running", identity(state_dir))] * len(tasks)
