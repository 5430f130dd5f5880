"""The connection by which PostgreSQL knows that this broker is alive.

It holds an advisory lock on a random number, listens for messages, and returns those whose holder has gone. When it is
lost, everything that was held under its number is void, and the next connection has another number.
"""

import asyncio
import contextlib
import logging
import secrets
from datetime import timedelta

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from common.backoff import full_jitter
from common.broker import postgres_queries as queries
from common.broker.base import Queue
from common.broker.postgres_schema import install
from common.broker.pull_consumer import Bells
from common.postgres import OUTAGE, Database, is_useless

log = logging.getLogger(__name__)

SWEEP_EVERY = timedelta(seconds=1)
SWEEP_DEADLINE = timedelta(seconds=10)
CLOSE_DEADLINE = timedelta(seconds=2)
FIRST_PAUSE = timedelta(milliseconds=200)
LONGEST_PAUSE = timedelta(seconds=3)

NONE = 0


class Session:
    """Keeps one such connection open; `number` is `NONE` while there is none. `declared`: what must exist on it."""

    def __init__(self, database: Database, bells: Bells) -> None:
        self.number = NONE
        # Declared anew with every connection, for a database that came back without its data.
        self.declared: dict[str, Queue] = {}
        self.database = database
        self._bells = bells
        self._connection: asyncpg.Connection | None = None
        self._lost = asyncio.Event()

    async def open(self) -> None:
        """Connect, create the tables if there are none, and become able to hold messages."""
        connection = await self.database.connect()
        try:
            await install(connection)
            if self.declared:
                await queries.declare(connection, tuple(self.declared.values()))
            number = secrets.randbits(63)
            while number == NONE or not await queries.claim_session(connection, number):
                number = secrets.randbits(63)
            await connection.add_listener(queries.CHANNEL, self._notified)
            await queries.sweep(connection, timeout=SWEEP_DEADLINE)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        self._lost.clear()
        connection.add_termination_listener(self._terminated)
        self.number = number
        self._bells.ring_all()

    async def keep(self) -> None:
        """Sweep while the connection lives and replace it when it is lost, until cancelled."""
        failures = 0
        while True:
            try:
                if self.number == NONE:
                    await self.open()
                    failures = 0
                    log.info("broker.session_opened")
                await self._sweep_until_lost()
            except OUTAGE as failure:
                failures += 1
                log.warning("broker.session_failed", extra={"reason": repr(failure), "failures": failures})
                if self.number != NONE and is_useless(failure):
                    await self.database.condemn(failure)
            await self.close()
            await asyncio.sleep(full_jitter(failures, base=FIRST_PAUSE, cap=LONGEST_PAUSE).total_seconds())

    async def condemned(self) -> None:
        """Give up the connection, for nothing of its server can be relied on."""
        self.condemn()

    def condemn(self) -> None:
        """Give up everything held under the current number: it is not known any more what that is."""
        self.number = NONE
        self._lost.set()
        self._bells.ring_all()

    async def close(self) -> None:
        """End the connection, and with it everything that it held."""
        self.condemn()
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with contextlib.suppress(*OUTAGE):
            await connection.close(timeout=CLOSE_DEADLINE.total_seconds())

    async def _sweep_until_lost(self) -> None:
        assert self._connection is not None
        while not self._lost.is_set():
            try:
                await queries.sweep(self._connection, timeout=SWEEP_DEADLINE)
            except TimeoutError:
                # A sweep that is slow is left to the next one, as long as the server answers.
                await self.database.check(self._connection)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_EVERY.total_seconds()):
                    await self._lost.wait()

    def _terminated(self, connection: asyncpg.Connection | PoolConnectionProxy) -> None:
        if connection is self._connection:
            self.condemn()

    def _notified(
        self, _connection: asyncpg.Connection | PoolConnectionProxy, _pid: int, _channel: str, payload: object
    ) -> None:
        self._bells.ring(str(payload))
