"""Have another orchestrator do something in the middle of what one does."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from orchestrator.database.pool import Pool
from tests.eventually import eventually

Value = TypeVar("Value")

WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def meanwhile(pool: Pool, rival: Coroutine[Any, Any, Value]) -> "asyncio.Task[Value]":
    """Begin something, and return when it has ended or waits for a lock that another transaction holds."""
    task = asyncio.create_task(rival)

    async def has_ended_or_waits() -> bool:
        async with pool.acquire() as db:
            return task.done() or bool(await db.fetchval(WAITS))

    await eventually(has_ended_or_waits)
    return task
