"""Bring the ledger's schema up to date, and print the SQL that would."""

import asyncio
import io

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from orchestrator.database.version import MIGRATIONS


def _config(database_url: str = "", output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output) if output is not None else Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["database_url"] = database_url
    return config


def last_migration() -> str | None:
    """Return the migration after which no other comes."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def migration_before(revision: str) -> str:
    """Return the migration that one follows."""
    before = ScriptDirectory.from_config(_config()).get_revision(revision).down_revision
    assert isinstance(before, str), "migrations are one chain"
    return before


async def upgrade(database_url: str, *, to: str = "head") -> None:
    """Run the migrations that a database still lacks, each in a transaction. Several callers take turns."""
    await asyncio.to_thread(command.upgrade, _config(database_url), to)


def upgrade_sql() -> str:
    """Return the SQL of all migrations, for people who run it themselves."""
    output = io.StringIO()
    command.upgrade(_config(output=output), "head", sql=True)
    return output.getvalue()
