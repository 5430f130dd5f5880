"""What is promised while RabbitMQ is away, and by two orchestrators at once, on real servers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from chiffon.client import Client
from orchestrator.database.pool import Pool
from tests.eventually import eventually
from tests.integration.system.deployment import System, open_system, orchestrator
from tests.services.ports import free_ports
from tests.services.rabbitmq_node import Node


@pytest.fixture
async def quick_system(amqp_url: str, ledger_url: str, tmp_path: Path) -> AsyncIterator[System]:
    """A system whose leases and tickets run out soon."""
    settings = {"lease_seconds": 4, "ticket_ttl_seconds": 3, "probe_seconds": 0.5}
    async with open_system(amqp_url, ledger_url, tmp_path, **settings) as opened:
        yield opened


async def _broker(node: Node, *command: str) -> None:
    await asyncio.to_thread(node.ctl, *command)


async def test_a_dispatch_is_answered_while_the_broker_is_away_and_runs_when_it_is_back(
    quick_system: System, rabbitmq: Node
) -> None:
    await quick_system.start_agent()
    await _broker(rabbitmq, "stop_app")
    try:
        ids = [uuid4() for _ in range(5)]
        async with asyncio.timeout(3):
            for task_id in ids:
                await quick_system.client.dispatch("echo", {"message": "x"}, task_id=task_id)
        assert {(await quick_system.client.status(task_id)).status for task_id in ids} == {"pending"}
    finally:
        await _broker(rabbitmq, "start_app")

    tasks = await quick_system.finished(*ids, timeout=60)
    assert {(task.status, task.attempt) for task in tasks} == {("completed", 1)}


async def test_an_orchestrator_says_that_it_is_not_ready_while_the_broker_is_away(
    quick_system: System, rabbitmq: Node
) -> None:
    async def ready() -> bool:
        return await quick_system.client.ready()

    await eventually(ready)
    await _broker(rabbitmq, "stop_app")
    try:

        async def not_ready() -> bool:
            return not await quick_system.client.ready()

        await eventually(not_ready, timeout=30)
    finally:
        await _broker(rabbitmq, "start_app")
    await eventually(ready, timeout=60)


async def test_work_that_ends_while_the_broker_is_away_is_not_lost_and_not_run_again(
    amqp_url: str, ledger_url: str, rabbitmq: Node, pool: Pool, tmp_path: Path
) -> None:
    task_id, starts, gate = uuid4(), tmp_path / "starts", tmp_path / "gate"

    async def lease_ran_out() -> bool:
        async with pool.acquire() as db:
            return bool(await db.fetchval("SELECT lease_expires_at < now() FROM task WHERE task_id = $1", task_id))

    async with open_system(amqp_url, ledger_url, tmp_path, lease_seconds=12, probe_seconds=0.5) as system:
        await system.start_agent(kill_grace_seconds=1)
        script = f"echo start >> {starts}; while [ ! -e {gate} ]; do sleep 0.05; done"
        await system.client.dispatch("shell_script", {"script": script}, task_id=task_id, idempotent=True)
        await eventually(starts.exists)
        await _broker(rabbitmq, "stop_app")
        try:
            gate.touch()
            await eventually(lease_ran_out, timeout=30)
        finally:
            await _broker(rabbitmq, "start_app")

        [task] = await system.finished(task_id, timeout=60)
    assert (task.status, task.attempt) == ("completed", 1)
    assert starts.read_text().split() == ["start"]


async def test_two_orchestrators_share_the_work_and_do_nothing_twice(system: System) -> None:
    [port] = free_ports(1)
    other = system.settings.model_copy(update={"port": port})
    for _ in range(2):
        await system.start_agent(slots=8)
    ids = [uuid4() for _ in range(120)]
    async with orchestrator(other, system.shared), Client(f"http://127.0.0.1:{port}") as second:
        await asyncio.gather(
            *(
                client.dispatch("echo", {"message": str(task_id)}, task_id=task_id)
                for task_id in ids
                for client in (system.client, second)
            )
        )
        tasks = await system.finished(*ids, timeout=60)

    assert {(task.status, task.attempt, task.output) for task in tasks} == {
        ("completed", 1, str(task_id)) for task_id in ids
    }
    for task_id in ids[:20]:
        kinds = [event.kind for event in (await system.client.events(task_id)).items]
        assert sorted(kinds) == ["task.claimed", "task.completed", "task.dispatched", "task.output"]


async def test_the_window_holds_also_when_two_orchestrators_fill_it(
    amqp_url: str, ledger_url: str, tmp_path: Path
) -> None:
    async with open_system(amqp_url, ledger_url, tmp_path, ticket_window=5) as system:
        [port] = free_ports(1)
        async with orchestrator(system.settings.model_copy(update={"port": port}), system.shared):
            await asyncio.gather(*(system.client.dispatch("echo", {"message": "x"}) for _ in range(60)))

            async def full() -> bool:
                return await system.broker.depth("work.infra") == 5

            await eventually(full)
            await system.client.dispatch("echo", {"message": "x"})
            assert await system.broker.depth("work.infra") == 5
