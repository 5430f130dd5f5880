"""Bring the ledger's schema up to date, print the SQL that would, and tell the version that a database has."""

import asyncio
import io
from contextlib import suppress
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from orchestrator.database.pool import Connection

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION = "SELECT version_num FROM alembic_version"


def _config(database_url: str = "", output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output) if output is not None else Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["database_url"] = database_url
    return config


def _head() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


HEAD = _head()


async def upgrade(database_url: str) -> None:
    """Run the migrations that a database still lacks, each in a transaction. Several callers take turns."""
    await asyncio.to_thread(command.upgrade, _config(database_url), "head")


def upgrade_sql() -> str:
    """Return the SQL of all migrations, for people who run it themselves."""
    output = io.StringIO()
    command.upgrade(_config(output=output), "head", sql=True)
    return output.getvalue()


async def current_version(database_url: str) -> str | None:
    """Return the version of a database's schema; None when it has none."""
    connection = await asyncpg.connect(database_url)
    try:
        return await version_of(connection)
    finally:
        await connection.close()


async def version_of(db: Connection) -> str | None:
    """Return the version of the schema that a connection sees; None when there is none."""
    with suppress(asyncpg.UndefinedTableError):
        version: str | None = await db.fetchval(VERSION)
        return version
    return None
