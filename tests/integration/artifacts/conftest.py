"""The artifacts of an orchestrator on an empty ledger and an empty folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.database.pool import Pool
from tests.integration.artifacts.keeping import Keeping, Work, keeping
from tests.integration.artifacts.keeping import work as make_work


@pytest.fixture
async def kept(pool: Pool, tmp_path: Path) -> AsyncIterator[Keeping]:
    async with keeping(pool, tmp_path / "artifacts") as kept:
        yield kept


@pytest.fixture
async def work(pool: Pool) -> Work:
    """A task of no run that an agent runs."""
    return await make_work(pool)
