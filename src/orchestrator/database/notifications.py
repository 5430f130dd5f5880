"""Hear what PostgreSQL notifies of."""

from collections.abc import Callable
from typing import Never

import asyncpg

from common.loop import Wake
from orchestrator.database.pool import CONNECT_SECONDS, Connection

CLOSE_SECONDS = 2


async def listen(database_url: str, channel: str, heard: Callable[[str], None]) -> Never:
    """Call `heard` at every notification, on a connection of its own, and raise ConnectionError when that is lost.

    It is told what the notification says, and nothing when it is called once at the start, for what was before.
    """
    connection = await asyncpg.connect(database_url, timeout=CONNECT_SECONDS)
    closed = Wake()

    def notified(connection: Connection, pid: int, channel: str, payload: object) -> None:
        heard(str(payload))

    try:
        connection.add_termination_listener(lambda _: closed.ring())
        await connection.add_listener(channel, notified)
        heard("")
        await closed.rung()
        raise ConnectionError("the connection that listens was closed")
    finally:
        await connection.close(timeout=CLOSE_SECONDS)
