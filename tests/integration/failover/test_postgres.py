"""The ledger and the bus in one PostgreSQL that is restarted, fails over, or ends and spoils its sessions."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.database.migrate import upgrade
from tests.eventually import eventually
from tests.integration.failover.load import Load
from tests.integration.system.deployment import open_system
from tests.services.postgres import Postgres
from tests.services.replicated_postgres import replicated_postgres

pytestmark = pytest.mark.xdist_group("failover_postgres")


@pytest.fixture
async def load(own_url: str, tmp_path: Path) -> AsyncIterator[Load]:
    async with open_system(own_url, own_url, tmp_path) as system:
        await system.start_agent()
        yield Load(system)


async def test_work_goes_on_after_a_crash_of_postgresql(load: Load, own_postgres: Postgres) -> None:
    async with load.running():
        await load.accepts(5)
        await own_postgres.stop_immediately()
        await eventually(lambda: load.refused)
        await own_postgres.start_again()
        await load.recovered("a crash of PostgreSQL")
    await load.check()


async def test_a_dispatch_is_refused_in_time_while_postgresql_is_frozen(load: Load, own_postgres: Postgres) -> None:
    async with load.running():
        await load.accepts(5)
        own_postgres.freeze()
        try:
            await eventually(lambda: len(load.refused) >= 2, timeout=20)
        finally:
            own_postgres.thaw()
        await load.recovered("a frozen PostgreSQL")
    await load.check()


async def test_work_goes_on_after_every_session_was_ended(load: Load, own_postgres: Postgres, own_url: str) -> None:
    async with load.running():
        for _ in range(3):
            await load.accepts(3)
            assert await own_postgres.terminate_sessions(own_url) > 0
        await load.recovered("ended sessions")
    await load.check()


async def test_work_goes_on_after_every_open_session_became_read_only(
    load: Load, own_postgres: Postgres, own_url: str
) -> None:
    name = urlsplit(own_url).path.removeprefix("/")
    async with load.running():
        await load.accepts(5)
        # Sessions to come can write, and those that are open cannot any more: what a failover leaves behind a proxy.
        await own_postgres.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = off')
        await own_postgres.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await own_postgres.execute("SELECT pg_reload_conf()")
        try:
            await load.recovered("read-only sessions")
            assert len(load.refused) < 10
        finally:
            await own_postgres.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await own_postgres.execute("SELECT pg_reload_conf()")
    await load.check()


async def test_work_goes_on_after_a_synchronous_standby_was_promoted(tmp_path: Path) -> None:
    async with replicated_postgres() as servers:
        url = servers.url()
        await upgrade(url)
        async with open_system(url, url, tmp_path) as system:
            await system.start_agent()
            load = Load(system)
            async with load.running():
                await load.accepts(5)
                await servers.kill_primary()
                await eventually(lambda: load.refused)
                await servers.promote_standby()
                await load.recovered("a promoted standby")
            await load.check()
