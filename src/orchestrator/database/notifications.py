"""Hear what PostgreSQL notifies of."""

from collections.abc import Callable
from datetime import timedelta
from typing import Never

from common.loop import Wake
from common.postgres import Connection, Database

CLOSE_SECONDS = 2
# A server that is a standby by now, or that is gone without a word, says nothing; so it is asked.
CHECK_EVERY = timedelta(seconds=3)


async def listen(database: Database, channel: str, heard: Callable[[str], None]) -> Never:
    """Call `heard` at every notification, on a connection of its own, and raise ConnectionError when that is lost.

    It is told what the notification says, and nothing when it is called once at the start, for what was before.
    """
    connection = await database.connect()
    lost = Wake()
    is_lost = False

    def lose(_: object = None) -> None:
        nonlocal is_lost
        is_lost = True
        lost.ring()

    async def condemned() -> None:
        lose()

    def notified(connection: Connection, pid: int, channel: str, payload: object) -> None:
        heard(str(payload))

    try:
        connection.add_termination_listener(lose)
        with database.condemnations(condemned):
            await connection.add_listener(channel, notified)
            heard("")
            while not is_lost:
                await lost.wait(CHECK_EVERY)
                if not is_lost:
                    await database.check(connection)
        raise ConnectionError("the connection that listens was lost")
    finally:
        if is_lost:  # there is nobody to say goodbye to
            connection.terminate()
        else:
            await connection.close(timeout=CLOSE_SECONDS)
