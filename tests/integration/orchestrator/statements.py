"""Count what is asked of PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from orchestrator.database import pool as connections
from orchestrator.database.pool import Connection, Pool, open_pool


class Statements:
    """What was asked over the connections of one pool, BEGIN and COMMIT too, in order."""

    def __init__(self) -> None:
        self._seen: list[str] = []

    def note(self, query: Any) -> None:
        self._seen.append(" ".join(query.query.split()))

    @contextmanager
    def counted(self) -> Iterator[list[str]]:
        """Give the list of what is asked in the block; it is complete at its end."""
        counted: list[str] = []
        before = len(self._seen)
        yield counted
        counted += self._seen[before:]


@asynccontextmanager
async def open_counting_pool(url: str, patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Pool, Statements]]:
    """Open one connection as the orchestrator opens its own, and note what is asked over it."""
    statements, prepare = Statements(), connections.prepare

    async def prepare_and_note(connection: Connection) -> None:
        await prepare(connection)
        connection.add_query_logger(statements.note)

    with patch.context() as patched:
        patched.setattr(connections, "prepare", prepare_and_note)
        async with open_pool(url, connections=1) as pool:
            yield pool, statements
