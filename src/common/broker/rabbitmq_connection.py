"""One connection to RabbitMQ, kept alive.

A *generation* is a connection with everything opened on it. It is thrown away whole when anything in it closes, and a
new one is made after a pause; nothing is repaired in place, because the library's own repairs leave consumers deaf
that believe they are alive.

The other end can vanish without closing the connection. RabbitMQ sends heartbeats, so a connection that is silent for
long is dead, whether or not anything is sent on it.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Generic, TypeVar

from aio_pika.abc import AbstractChannel
from aiormq.exceptions import AMQPChannelError
from yarl import URL

from common.backoff import full_jitter
from common.broker.base import BrokerUnavailable
from common.broker.rabbitmq_wire import WiredConnection
from common.loop import end
from common.urls import each_host, hide_password, place

log = logging.getLogger(__name__)

# RabbitMQ sends two in this time. It recommends 5 to 20 seconds; an agent must notice a dead connection, make another
# and renew before it stops work whose lease it cannot renew.
HEARTBEAT_SECONDS = 5
# Silence for so many times that means that a connection is dead. The library waits for more than three times that.
SILENT_HEARTBEATS = 2
LOOK = timedelta(seconds=1)
# Where the broker sets no limit.
LARGEST_FRAME = 131_072
CLOSE_DEADLINE = timedelta(seconds=5)
FIRST_PAUSE = timedelta(milliseconds=500)
LONGEST_PAUSE = timedelta(seconds=3)
# A connection that lived for less counts as one more failure in a row.
STABLE_AFTER_SECONDS = 10.0

Value = TypeVar("Value")
Prepared = TypeVar("Prepared")


async def within(deadline: timedelta, call: Awaitable[Value]) -> Value:
    """Await a call of the client library.

    Raises `AMQPChannelError` when the broker refuses it, and `BrokerUnavailable` for everything else that can happen
    to it. The call gets a task of its own because the library cancels whoever waits on a connection that closes.
    """
    task = asyncio.ensure_future(call)
    try:
        async with asyncio.timeout(deadline.total_seconds()):
            await asyncio.wait([task])
    except TimeoutError:
        raise BrokerUnavailable(f"RabbitMQ did not answer within {deadline.total_seconds():g} s.") from None
    finally:
        if not task.done():
            task.cancel()
    if task.cancelled():
        raise BrokerUnavailable("The connection to RabbitMQ was lost.")
    try:
        return task.result()
    except (AMQPChannelError, BrokerUnavailable):
        raise
    except Exception as failure:  # the library raises OSError, RuntimeError, its own errors, and bare Exception
        raise BrokerUnavailable(f"RabbitMQ did not answer: {failure or type(failure).__name__}") from failure


class Generation(Generic[Prepared]):
    """A connection and what was prepared on it. `lost` is set as soon as any part of it has closed."""

    prepared: Prepared

    def __init__(
        self, connection: WiredConnection, *, deadline: timedelta, on_lost: Callable[[str | None], None]
    ) -> None:
        self.lost = asyncio.Event()
        self.wire = connection.wire
        # For how long RabbitMQ may say nothing; zero where no heartbeats were agreed upon.
        self.silence = SILENT_HEARTBEATS * connection.heartbeat
        self._connection = connection
        self._deadline = deadline
        self._on_lost = on_lost
        self._losers: list[Callable[[], None]] = []
        self._watched: set[AbstractChannel] = set()
        connection.close_callbacks.add(self._connection_closed)

    def check_not_blocked(self) -> None:
        """Raise `BrokerUnavailable` while RabbitMQ reads nothing here, for want of memory or disk."""
        if (alarm := self.wire.said.alarm) is not None:
            raise BrokerUnavailable(f"RabbitMQ is blocked: {alarm}")

    def condemn(self, reason: str | None) -> None:
        """Declare everything of this generation void; the supervisor throws it away. No reason: it was on purpose."""
        if not self.lost.is_set():
            self.lost.set()
            self._on_lost(reason)
            for tell in self._losers:
                tell()

    def give_up(self, reason: str) -> None:
        """Condemn a connection whose other end does not answer, and close its socket without waiting for an answer."""
        if not self.lost.is_set():
            self.condemn(reason)
            self.wire.abort()

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Have somebody told, at once, when this generation is void."""
        self._losers.append(tell)
        if self.lost.is_set():
            tell()

    async def open_channel(self, *, confirms: bool) -> AbstractChannel:
        """Open a channel of which nobody minds if it closes, until it is given to `watch`."""

        async def opening() -> AbstractChannel:
            channel = self._connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
            await channel.initialize()
            return channel

        return await within(self._deadline, opening())

    async def number_of(self, channel: AbstractChannel) -> tuple[int, int]:
        """Return an open channel's number, and how large its frames may be."""
        below = await channel.get_underlay_channel()
        return below.number, below.connection.connection_tune.frame_max or LARGEST_FRAME

    def watch(self, channel: AbstractChannel) -> None:
        """Condemn this generation when the channel closes."""
        self._watched.add(channel)
        channel.close_callbacks.add(self._channel_closed)
        if channel.is_closed:
            self._channel_closed(channel, None)

    async def close_channel(self, channel: AbstractChannel) -> None:
        """Close a channel on purpose; never raises."""
        self._watched.discard(channel)
        with suppress(BrokerUnavailable, AMQPChannelError):
            await within(CLOSE_DEADLINE, channel.close())

    @asynccontextmanager
    async def side_channel(self) -> AsyncIterator[AbstractChannel]:
        """Lend a channel for a question whose refusal closes that channel only."""
        channel = await self.open_channel(confirms=False)
        try:
            yield channel
        finally:
            await self.close_channel(channel)

    async def close(self) -> None:
        """Close the connection; never raises."""
        self.condemn(None)
        closing = asyncio.ensure_future(self._connection.close())
        try:
            await asyncio.wait([closing], timeout=CLOSE_DEADLINE.total_seconds())
        finally:
            # What still waits in a socket that takes nothing must not be sent when it wakes up.
            self.wire.abort()
            await end(closing)
            # If that was cut short, the library takes it for open.
            await self._connection.close()

    def _connection_closed(self, _connection: object, reason: BaseException | None) -> None:
        self.condemn(f"connection closed: {reason!r}")

    def _channel_closed(self, channel: AbstractChannel | None, reason: BaseException | None) -> None:
        if channel in self._watched:
            self.condemn(f"channel closed: {reason!r}")


class Link(Generic[Prepared]):
    """Supervises one connection: makes a generation, waits until it is lost, makes the next."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        deadline: timedelta,
        prepare: Callable[[Generation[Prepared]], Awaitable[Prepared]],
    ) -> None:
        self._url = url
        self._hosts = [_with_heartbeat(URL(host)) for host in each_host(url)]
        # Those who connect at the same moment spread over the nodes of a cluster.
        random.shuffle(self._hosts)
        self._failure = "It was not connected to yet."
        self._name = name
        self._deadline = deadline
        self._prepare = prepare
        self._generation: Generation[Prepared] | None = None
        self._dropped = False
        self._usable = asyncio.Event()
        # How many generations there were.
        self.opened = 0

    async def generation(self) -> Generation[Prepared]:
        """Wait until there is a connection and return its generation."""
        while self._generation is None or self._generation.lost.is_set():
            await self._usable.wait()
        return self._generation

    @property
    def is_usable(self) -> bool:
        """Whether there is a connection, and RabbitMQ has no alarm."""
        generation = self._generation
        return generation is not None and not generation.lost.is_set() and generation.wire.said.alarm is None

    def current(self) -> Generation[Prepared]:
        """Return the generation that there is. Raises `BrokerUnavailable` with the last failure, or the alarm."""
        if self._generation is None or self._generation.lost.is_set():
            raise BrokerUnavailable(self._failure)
        self._generation.check_not_blocked()
        return self._generation

    async def open(self) -> Generation[Prepared]:
        """Make a generation, on the first host that lets it. Raises `BrokerUnavailable`."""
        failures: list[str] = []
        for _ in self._hosts:
            # Whatever becomes of it, the next attempt begins with another.
            host = self._hosts.pop(0)
            self._hosts.append(host)
            try:
                return await self._open(host)
            except BrokerUnavailable as failure:
                failures.append(
                    f"{place(host.host or '', host.port or '')}: {failure}" if len(self._hosts) > 1 else str(failure)
                )
            except AMQPChannelError as refusal:
                failures.append(f"RabbitMQ refuses a channel or a queue: {refusal}")
        self._failure = hide_password(" ".join(failures), self._url)
        raise BrokerUnavailable(self._failure)

    async def _open(self, host: URL) -> Generation[Prepared]:
        connection = WiredConnection(host, client_properties={"connection_name": self._name})
        try:
            await within(self._deadline / len(self._hosts), connection.connect())
        except BrokerUnavailable as failure:
            await connection.close()
            # The library says that something else was expected.
            if connection.refusal is not None:
                raise BrokerUnavailable(f"RabbitMQ refuses the connection: {connection.refusal}") from failure
            raise
        except BaseException:
            await connection.close()
            raise
        generation: Generation[Prepared] = Generation(connection, deadline=self._deadline, on_lost=self._lost)
        try:
            generation.prepared = await self._prepare(generation)
        except BaseException:
            await generation.close()
            raise
        self._generation = generation
        self.opened += 1
        if not generation.lost.is_set():
            self._usable.set()
        return generation

    async def keep(self) -> None:
        """Replace every generation that is lost, until cancelled."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            opened = loop.time()
            was_open = False
            try:
                generation = self._generation or await self.open()
            except Exception as failure:  # whatever it is, the next attempt may go better; nothing else would try
                log.warning("broker.connect_failed", extra={"connection": self._name, "reason": repr(failure)})
            else:
                log.info("broker.connected", extra={"connection": self._name})
                await self._until_lost(generation)
                await generation.close()
                self._generation = None
                was_open = loop.time() - opened > STABLE_AFTER_SECONDS or self._dropped
                self._dropped = False
            failures = 1 if was_open else failures + 1
            await asyncio.sleep(full_jitter(failures, base=FIRST_PAUSE, cap=LONGEST_PAUSE).total_seconds())

    async def _until_lost(self, generation: Generation[Prepared]) -> None:
        """Return when a generation is lost; give it up when RabbitMQ has fallen silent."""
        quiet = timedelta()
        while not generation.lost.is_set():
            generation.wire.was_heard = False
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK.total_seconds()):
                    await generation.lost.wait()
            # Looks are counted instead of seconds: a process that was stopped for long has not listened.
            quiet = timedelta() if generation.wire.was_heard else quiet + LOOK
            if generation.silence and quiet >= generation.silence:
                generation.give_up(f"RabbitMQ was not heard for {quiet.total_seconds():g} s")

    def drop(self, reason: str) -> None:
        """Condemn the current generation, if there is one."""
        if self._generation is not None:
            # Our own wish, and no sign that connecting is of no use.
            self._dropped = True
            self._generation.condemn(reason)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._generation is not None:
            await self._generation.close()
            self._generation = None

    def _lost(self, reason: str | None) -> None:
        self._usable.clear()
        if reason is not None:
            self._failure = hide_password(f"The connection to RabbitMQ was lost ({reason}).", self._url)
            log.warning("broker.connection_lost", extra={"connection": self._name, "reason": reason})


def _with_heartbeat(url: URL) -> URL:
    return url if "heartbeat" in url.query else url.update_query(heartbeat=HEARTBEAT_SECONDS)
