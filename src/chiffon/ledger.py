"""Prepare the database. When it cannot be reached, `StartupRefused` says so in words."""

from orchestrator.database import migrate
from orchestrator.database.pool import open_pool


async def upgrade(database_url: str) -> None:
    """Bring a database's tables up to this version."""
    await _reach(database_url)
    await migrate.upgrade(database_url)


async def current_version(database_url: str) -> str | None:
    """Return the version of a database's tables; None when it has none."""
    await _reach(database_url)
    return await migrate.current_version(database_url)


async def _reach(database_url: str) -> None:
    # The migrations themselves would fail with a trace of their tools, in which nobody finds the reason.
    async with open_pool(database_url, connections=1):
        pass
