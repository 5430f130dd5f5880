"""Work goes on when connections carry nothing any more, although nobody has closed them, and new ones work.

A program that says nothing runs for longer than its lease. Its task completes with the first attempt.
"""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from common.broker import rabbitmq_connection
from common.config import SharedSettings
from common.postgres import Database
from orchestrator.database import notifications
from orchestrator.database.pool import Connection, Pool, open_pool
from tests.contract.proxy import Proxy
from tests.eventually import eventually
from tests.integration.system.deployment import System, open_system

LEASE = timedelta(seconds=8)
LASTING = "SELECT pg_sleep(100)"
RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE query = $1 AND state = 'active' AND datname = current_database()"
LEASE_END = "SELECT lease_expires_at FROM task WHERE task_id = $1"


@pytest.fixture(autouse=True)
def ask_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers asked as often as short leases need it."""
    monkeypatch.setattr(rabbitmq_connection, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(notifications, "CHECK_EVERY", timedelta(seconds=0.5))
    monkeypatch.setitem(Database.__init__.__kwdefaults__ or {}, "silence", timedelta(seconds=1))


async def completes_with_its_first_attempt(system: System, silenced: Proxy, pool: Pool) -> None:
    """Silence connections while a program runs; it ends once its lease has been renewed for longer than it was."""
    task_id, starts, gate = uuid4(), system.folder / "starts", system.folder / "gate"

    async def lease_end() -> datetime:
        async with pool.acquire() as db:
            end: datetime | None = await db.fetchval(LEASE_END, task_id)
        assert end is not None, "the lease was lost"
        return end

    script = f"echo start >> {starts}; while [ ! -e {gate} ]; do sleep 0.05; done"
    await system.client.dispatch("shell_script", {"script": script}, task_id=task_id, idempotent=True, max_attempts=3)
    await eventually(starts.exists, timeout=30)
    first_end = await lease_end()

    silenced.silence()

    async def has_lasted() -> bool:
        return await lease_end() > first_end + LEASE

    await eventually(has_lasted, timeout=60, every=0.2)
    gate.touch()
    [task] = await system.finished(task_id, timeout=60)
    assert (task.status, task.attempt) == ("completed", 1)
    assert starts.read_text().split() == ["start"]


async def test_work_goes_on_when_an_agents_connections_to_rabbitmq_fall_silent(
    amqp_url: str, ledger_url: str, pool: Pool, tmp_path: Path
) -> None:
    lease = LEASE.total_seconds()
    async with Proxy(amqp_url) as proxy, open_system(amqp_url, ledger_url, tmp_path, lease_seconds=lease) as system:
        await system.start_agent(shared=SharedSettings(broker_url=proxy.url))
        await completes_with_its_first_attempt(system, proxy, pool)


async def test_work_goes_on_when_an_orchestrators_connections_to_rabbitmq_fall_silent(
    amqp_url: str, ledger_url: str, pool: Pool, tmp_path: Path
) -> None:
    lease = LEASE.total_seconds()
    async with Proxy(amqp_url) as proxy, open_system(proxy.url, ledger_url, tmp_path, lease_seconds=lease) as system:
        await system.start_agent(shared=SharedSettings(broker_url=amqp_url))
        await completes_with_its_first_attempt(system, proxy, pool)


async def test_work_goes_on_when_an_orchestrators_sessions_at_postgresql_fall_silent(
    amqp_url: str, ledger_url: str, pool: Pool, tmp_path: Path
) -> None:
    lease = LEASE.total_seconds()
    async with Proxy(ledger_url) as proxy, open_system(amqp_url, proxy.url, tmp_path, lease_seconds=lease) as system:
        await system.start_agent()
        await completes_with_its_first_attempt(system, proxy, pool)


async def test_work_goes_on_when_an_agents_connections_over_http_fall_silent(
    amqp_url: str, ledger_url: str, pool: Pool, tmp_path: Path
) -> None:
    async with (
        open_system(amqp_url, ledger_url, tmp_path) as system,
        Proxy(str(system.client.base_url)) as proxy,
        # The agent leaves before the proxy does: it hands over what it has.
        system.for_one_test(tmp_path) as lent,
    ):
        await lent.start_agent(shared=SharedSettings(), server_url=proxy.url, lease_seconds=int(LEASE.total_seconds()))
        await completes_with_its_first_attempt(lent, proxy, pool)


async def test_statements_of_condemned_sessions_end_when_the_server_answers_another_session(ledger_url: str) -> None:
    async with open_pool(ledger_url, connections=5) as pool, pool.acquire() as watching:
        before = asyncio.create_task(pool.fetchval(LASTING))
        await eventually(lambda: _running(watching, 1))
        await pool.database.condemn(ConnectionError("a test"))
        later = asyncio.create_task(pool.fetchval(LASTING))
        await eventually(lambda: _running(watching, 2))
        assert not before.done()

        async with pool.acquire() as new:
            await pool.database.check(new)

        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await before
        assert not later.done()
        later.cancel()
        await asyncio.wait({later})


async def _running(db: Connection, wanted: int) -> bool:
    return bool(await db.fetchval(RUNNING, LASTING) == wanted)
