"""Wait until a query counts so many rows, without being much work for the server that is measured."""

import asyncio
from typing import Any

import asyncpg

from bench.programs import ProgramFailed

SHORTEST_PAUSE = 0.01
# The server counts a tenth of the time at most.
PAUSE_PER_COUNT = 9
PATIENCE = 600.0


async def counted(db: "asyncpg.Connection[Any]", query: str) -> int:
    """Return what the query counts; 0 when its table is not there yet."""
    try:
        count: int = await db.fetchval(query)
    except asyncpg.UndefinedTableError:
        return 0
    return count


async def until(db: "asyncpg.Connection[Any]", query: str, wanted: int, *, longest: float = PATIENCE) -> float:
    """Wait for so many, and return when they were seen, by the clock of the event loop. Raises `ProgramFailed`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + longest
    while True:
        asked = loop.time()
        found = await counted(db, query)
        seen = loop.time()
        if found >= wanted:
            return seen
        if seen > deadline:
            raise ProgramFailed(f"{found} of {wanted} were there after {longest:.0f} s: {' '.join(query.split())}")
        await asyncio.sleep(max(SHORTEST_PAUSE, PAUSE_PER_COUNT * (seen - asked)))
