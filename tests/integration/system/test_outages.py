"""What is promised while RabbitMQ is away, and by two orchestrators at once, on real servers."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from chiffon.client import Client
from common.broker import rabbitmq_connection
from orchestrator.database.pool import Pool
from tests.contract.proxy import Proxy
from tests.eventually import eventually
from tests.integration.system.deployment import System, open_system, orchestrator
from tests.services.ports import free_ports
from tests.services.rabbitmq_node import Node

QUICK = {"lease_seconds": 4, "probe_seconds": 0.5}


@pytest.fixture(autouse=True)
def reconnects_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents come back within the lease's time that the orchestrator gives them, however short the leases here are."""
    monkeypatch.setattr(rabbitmq_connection, "LONGEST_PAUSE", timedelta(seconds=1))


@pytest.fixture
async def way(amqp_url: str) -> AsyncIterator[Proxy]:
    """The only way to the broker; a test can close it."""
    async with Proxy(amqp_url) as proxy:
        yield proxy


@pytest.mark.xdist_group("own_rabbitmq")
async def test_a_dispatch_is_answered_while_the_broker_is_away_and_runs_once_when_it_is_back(
    own_rabbitmq: Node, ledger_url: str, tmp_path: Path
) -> None:
    starts, ids = tmp_path / "starts", [uuid4() for _ in range(5)]
    async with open_system(own_rabbitmq.new_vhost_url(), ledger_url, tmp_path, **QUICK) as system:
        await system.start_agent()
        await asyncio.to_thread(own_rabbitmq.ctl, "stop_app")
        try:
            async with asyncio.timeout(3):
                for task_id in ids:
                    script = {"script": f"echo {task_id} >> {starts}"}
                    await system.client.dispatch("shell_script", script, task_id=task_id)
            assert {(await system.client.status(task_id)).status for task_id in ids} == {"pending"}
        finally:
            await asyncio.to_thread(own_rabbitmq.ctl, "start_app")

        tasks = await system.finished(*ids, timeout=60)
    # A grant that arrives late is handed back unused, so the attempt may be a later one; the work runs once.
    assert {task.status for task in tasks} == {"completed"}
    assert sorted(starts.read_text().split()) == sorted(map(str, ids))


async def test_an_orchestrator_says_that_it_is_not_ready_while_the_broker_is_away(
    way: Proxy, ledger_url: str, tmp_path: Path
) -> None:
    async with open_system(way.url, ledger_url, tmp_path, **QUICK) as system:

        async def not_ready() -> bool:
            return not await system.client.ready()

        await eventually(system.client.ready)
        way.refuse()
        await eventually(not_ready, timeout=30)
        way.accept()
        await eventually(system.client.ready, timeout=60)


async def test_work_that_ends_while_the_broker_is_away_is_not_lost_and_not_run_again(
    way: Proxy, ledger_url: str, pool: Pool, tmp_path: Path
) -> None:
    task_id, starts, gate = uuid4(), tmp_path / "starts", tmp_path / "gate"

    async def lease_ran_out() -> bool:
        async with pool.acquire() as db:
            return bool(await db.fetchval("SELECT lease_expires_at < now() FROM task WHERE task_id = $1", task_id))

    async with open_system(way.url, ledger_url, tmp_path, lease_seconds=4, probe_seconds=0.5) as system:
        await system.start_agent(kill_grace_seconds=0.5)
        script = f"echo start >> {starts}; while [ ! -e {gate} ]; do sleep 0.05; done"
        await system.client.dispatch("shell_script", {"script": script}, task_id=task_id, idempotent=True)
        await eventually(starts.exists)
        way.refuse()
        gate.touch()
        await eventually(lease_ran_out, timeout=30)
        way.accept()

        [task] = await system.finished(task_id, timeout=60)
    assert (task.status, task.attempt) == ("completed", 1)
    assert starts.read_text().split() == ["start"]


async def test_two_orchestrators_share_the_work_and_do_nothing_twice(own_system: System) -> None:
    [port] = free_ports(1)
    other = own_system.settings.model_copy(update={"port": port})
    for _ in range(2):
        await own_system.start_agent(slots=8)
    ids = [uuid4() for _ in range(120)]
    async with orchestrator(other, own_system.shared), Client(f"http://127.0.0.1:{port}") as second:
        await asyncio.gather(
            *(
                client.dispatch("echo", {"message": str(task_id)}, task_id=task_id)
                for task_id in ids
                for client in (own_system.client, second)
            )
        )
        tasks = await own_system.finished(*ids, timeout=60)

    assert {(task.status, task.attempt, task.output) for task in tasks} == {
        ("completed", 1, str(task_id)) for task_id in ids
    }
    for task_id in ids[:20]:
        kinds = [event.kind for event in (await own_system.client.events(task_id)).items]
        assert sorted(kinds) == ["task.claimed", "task.completed", "task.dispatched", "task.output"]
