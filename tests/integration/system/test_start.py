"""An orchestrator that cannot do its work does not start, says why and what to do, and ends with an exit status."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from common.config import SharedSettings
from common.errors import StartupRefused
from orchestrator.database.migrate import migration_before, upgrade
from orchestrator.database.pool import open_pool
from orchestrator.database.version import HEAD
from orchestrator.main import serve
from orchestrator.readiness import check_schema
from orchestrator.settings import OrchestratorSettings
from tests.services.ports import free_ports

MEMORY = SharedSettings(broker_url="memory://")


async def refusal(settings: OrchestratorSettings, shared: SharedSettings) -> str:
    """Try to start, and return why that was refused."""
    with pytest.raises(StartupRefused) as refused:
        async with asyncio.timeout(30):
            await serve(settings, shared, stop=asyncio.Event())
    return str(refused.value)


async def test_it_does_not_start_without_a_database(tmp_path: Path) -> None:
    settings = OrchestratorSettings(database_url=f"postgresql://me@/ledger?host={tmp_path}", port=0)

    reason = await refusal(settings, MEMORY)

    assert "The database cannot be used" in reason
    assert "CHIFFON_DATABASE_URL" in reason


async def test_it_does_not_start_on_a_schema_that_is_not_its_own(database_url: str) -> None:
    reason = await refusal(OrchestratorSettings(database_url=database_url, port=0), MEMORY)

    assert "schema is at version none" in reason
    assert "chiffon db upgrade" in reason


async def test_it_does_not_start_on_the_schema_of_an_earlier_version(database_url: str) -> None:
    await upgrade(database_url, to=migration_before(HEAD))

    async with open_pool(database_url, connections=3) as pool:
        with pytest.raises(StartupRefused, match=f"this program needs {HEAD}"):
            await check_schema(pool)


async def test_it_does_not_start_without_a_broker_and_hides_the_password(ledger_url: str) -> None:
    [port] = free_ports(1)
    shared = SharedSettings(broker_url=f"amqp://me:hunter2@127.0.0.1:{port}/")

    reason = await refusal(OrchestratorSettings(database_url=ledger_url, port=0), shared)

    assert "The broker cannot be used" in reason
    assert "CHIFFON_BROKER_URL" in reason
    assert "hunter2" not in reason


async def test_it_does_not_start_on_an_address_that_is_taken(ledger_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert f"127.0.0.1:{port}" in await refusal(OrchestratorSettings(database_url=ledger_url, port=port), MEMORY)


async def test_the_command_ends_with_status_1_and_the_reason(database_url: str, ledger_url: str) -> None:
    # The broker is the ledger's database; the schema is missing in the other one.
    command = [sys.executable, "-m", "chiffon", "server", "--port", "0"]
    environment = {**os.environ, "CHIFFON_DATABASE_URL": database_url, "CHIFFON_BROKER_URL": ledger_url}
    server = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )

    out, err = await asyncio.wait_for(server.communicate(), 60)

    assert server.returncode == 1
    assert out == b""
    assert "chiffon db upgrade" in err.decode()
    assert "Traceback" not in err.decode()


async def test_it_does_not_start_without_signing_keys_unless_signatures_are_off(ledger_url: str) -> None:
    """Every task would fail at its agent, which runs only what is signed."""
    reason = await refusal(OrchestratorSettings(database_url=ledger_url, port=0, signatures="required"), MEMORY)

    assert "no signing keys" in reason
    assert "CHIFFON_SIGNING_KEYS_DIR" in reason
    assert "CHIFFON_SIGNATURES=off" in reason
