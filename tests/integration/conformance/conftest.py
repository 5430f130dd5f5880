"""A real orchestrator that workers are tried on."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.system.deployment import open_system
from tests.services.postgres import Postgres

LEASE = 2.0


@pytest.fixture(scope="module")
async def server(
    postgres: Postgres, ledger_template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """The address of an orchestrator with an empty ledger, its bus in the same database."""
    url = await postgres.create_database(template=ledger_template)
    folder = tmp_path_factory.mktemp("server")
    async with open_system(url, url, folder, lease_seconds=1) as system:
        yield f"http://127.0.0.1:{system.settings.port}"
    await postgres.drop_database(url)


def worker_command(program: Path) -> str:
    return f"{sys.executable} {program} {{server}} {{worker}}"
