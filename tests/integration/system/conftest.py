"""A running Chiffon on the real RabbitMQ and PostgreSQL."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.system.deployment import System, open_system


@pytest.fixture
async def system(amqp_url: str, ledger_url: str, tmp_path: Path) -> AsyncIterator[System]:
    async with open_system(amqp_url, ledger_url, tmp_path) as opened:
        yield opened
