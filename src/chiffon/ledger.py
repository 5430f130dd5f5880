"""Prepare the database, and say in words when it cannot be used."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from common.errors import StartupRefused
from orchestrator.database import migrate


class DatabaseUnusable(StartupRefused):
    def __init__(self, cause: BaseException) -> None:
        super().__init__(
            f"The database cannot be used ({type(cause).__name__}: {cause}). "
            "Is PostgreSQL running, and is CHIFFON_DATABASE_URL right?"
        )


async def upgrade(database_url: str) -> None:
    """Bring a database's tables up to this version. Raises `DatabaseUnusable`."""
    with _explained():
        await migrate.upgrade(database_url)


async def current_version(database_url: str) -> str | None:
    """Return the version of a database's tables; None when it has none. Raises `DatabaseUnusable`."""
    with _explained():
        return await migrate.current_version(database_url)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, SQLAlchemyError) as error:
        raise DatabaseUnusable(error) from error
