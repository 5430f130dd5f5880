"""PostgreSQL behind PgBouncer: session mode works, other modes are refused with a sentence."""

from pathlib import Path

import pytest

from common.broker.base import BrokerUnavailable
from common.broker.connect import open_broker
from common.errors import StartupRefused
from orchestrator.database.migrate import upgrade
from orchestrator.database.pool import open_pool
from tests.acceptance.deployment import chiffon
from tests.integration.failover.load import Load
from tests.integration.system.deployment import open_system
from tests.services.pgbouncer import pgbouncer
from tests.services.postgres import Postgres

SENTENCE = "use session mode"


async def test_ledger_and_bus_work_in_session_mode_and_after_every_session_was_ended(
    database_url: str, postgres: Postgres, tmp_path: Path
) -> None:
    async with pgbouncer(database_url, pool_mode="session") as url:
        await upgrade(url)
        async with open_system(url, url, tmp_path) as system:
            await system.start_agent()
            load = Load(system)
            async with load.running():
                await load.accepts(3)
                assert await postgres.terminate_sessions(database_url) > 0
                await load.recovered("ended sessions behind PgBouncer")
            await load.check()


@pytest.mark.parametrize("pool_mode", ["transaction", "statement"])
async def test_a_pooler_that_shares_sessions_is_refused_with_one_sentence(pool_mode: str, database_url: str) -> None:
    async with pgbouncer(database_url, pool_mode=pool_mode) as url:
        with pytest.raises(StartupRefused, match=SENTENCE):
            async with open_pool(url, connections=3):
                pass
        with pytest.raises(BrokerUnavailable, match=SENTENCE):
            async with open_broker(url, name="test"):
                pass
        for command in ("server", "db upgrade"):
            status, out, err = await chiffon(*command.split(), CHIFFON_DATABASE_URL=url, CHIFFON_BROKER_URL=url)
            assert status != 0
            assert SENTENCE in out + err
            assert "Traceback" not in out + err
