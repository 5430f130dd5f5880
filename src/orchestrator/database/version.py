"""The version of the ledger's schema: the one that this program was written for, and the one that a database has."""

from contextlib import suppress
from pathlib import Path

import asyncpg

from orchestrator.database.pool import Connection

MIGRATIONS = Path(__file__).parent / "migrations"
# The number that the last migration's file name begins with. Asking Alembic would load it and SQLAlchemy into every
# orchestrator, a third of the time that its start takes, for nothing else.
HEAD = max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))

VERSION = "SELECT version_num FROM alembic_version"


async def version_of(db: Connection) -> str | None:
    """Return the version of the schema that a connection sees; None when there is none."""
    with suppress(asyncpg.UndefinedTableError):
        version: str | None = await db.fetchval(VERSION)
        return version
    return None
