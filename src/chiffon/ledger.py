"""Prepare the database. When it cannot be reached, `StartupRefused` says so in words."""

from orchestrator.database import version
from orchestrator.database.pool import open_pool


async def upgrade(database_url: str) -> None:
    """Bring a database's tables up to this version."""
    if await current_version(database_url) == version.HEAD:
        return
    # What migrates takes as long to load as everything else together, and nearly every start finds nothing to do.
    from orchestrator.database import migrate

    await migrate.upgrade(database_url)


async def current_version(database_url: str) -> str | None:
    """Return the version of a database's tables; None when it has none."""
    # The rest would fail with a trace of its tools, in which nobody finds the reason.
    async with open_pool(database_url, connections=1) as pool, pool.acquire() as db:
        return await version.version_of(db)
