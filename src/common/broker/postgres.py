"""The broker inside PostgreSQL: for installations that run without a message bus of their own.

One table holds the messages; taking one marks its row with the number of this broker's session (see
`postgres_session`), and acknowledging it deletes the row. Calls that arrive together share a statement.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import cast

from common.backoff import full_jitter
from common.batching import Batcher
from common.broker import postgres_queries as queries
from common.broker.base import Address, BrokerUnavailable, Consumer, Delivery, Outgoing, Queue, Unroutable
from common.broker.dead_letters import dead_letter_headers
from common.broker.postgres_queries import Tag
from common.broker.postgres_session import NONE, Session
from common.broker.pull_consumer import Bells, PullConsumer
from common.broker.routing import Routes
from common.broker.topology import DEAD
from common.loop import end
from common.postgres import OUTAGE, Database, Pool, Pooled, open_sessions, shown

log = logging.getLogger(__name__)

DEADLINE = timedelta(seconds=10)
POLL = timedelta(seconds=1)
FIRST_PAUSE = timedelta(milliseconds=50)
LONGEST_PAUSE = timedelta(seconds=2)
CALLS_AT_ONCE = 500
CONNECTIONS = 3
# How often a publish finds the topology changed under it before it gives up.
ROUTING_ATTEMPTS = 10
NO_VERSION = -1


class PostgresBroker:
    """See `base.Broker`."""

    def __init__(self, storing: Pool, pool: Pool, session: Session, bells: Bells, *, deadline: timedelta) -> None:
        self._storing = storing
        self._pool = pool
        self._session = session
        self._bells = bells
        self._deadline = deadline
        self._version = NO_VERSION
        self._routes = Routes()
        self._publishing: Batcher[tuple[Outgoing, ...], None] = Batcher(self._publish_calls, limit=CALLS_AT_ONCE)
        self._forgetting: Batcher[list[Tag], None] = Batcher(self._forget_calls, limit=CALLS_AT_ONCE)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work while inside."""
        async with self._publishing, self._forgetting:
            yield

    @property
    def generation(self) -> int:
        return self._session.number

    @property
    def is_connected(self) -> bool:
        return self.generation != NONE

    async def declare(self, *queues: Queue, keep: bool = True) -> None:
        with _explained("declare queues"):
            async with asyncio.timeout(self._deadline.total_seconds()), self._storing.acquire() as db:
                await queries.declare(db, queues)
        if keep:
            self._session.declared.update({queue.name: queue for queue in queues})

    async def delete(self, queue: str) -> None:
        self._session.declared.pop(queue, None)
        with _explained("delete a queue"):
            async with asyncio.timeout(self._deadline.total_seconds()), self._storing.acquire() as db:
                await queries.delete_queue(db, queue)

    async def publish(self, *messages: Outgoing) -> None:
        if not messages:
            return
        with _explained("publish"):
            async with asyncio.timeout(self._deadline.total_seconds()):
                await self._publishing.submit(messages)

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumer]:
        with self._bells.listening(queue) as bell:
            consumer = PullConsumer(self, queue, prefetch=prefetch, bell=bell, poll=POLL)
            try:
                yield consumer
            finally:
                await consumer.close()

    async def depth(self, queue: str) -> int:
        with _explained("count messages"):
            async with asyncio.timeout(self._deadline.total_seconds()):
                return await queries.depth(self._pool, queue)

    async def check(self) -> None:
        with _explained("answer"):
            async with asyncio.timeout(self._deadline.total_seconds()):
                await queries.topology_version(self._pool)

    async def reconnect(self) -> None:
        await self._session.database.condemn(ConnectionError("asked to reconnect"))

    async def take(self, queue: str, limit: int) -> list[Delivery]:
        session = self.generation
        if session == NONE:
            return []
        try:
            taken = await queries.take(self._pool, queue, limit, session=session)
        except OUTAGE as failure:
            log.warning("broker.take_failed", extra={"queue": queue, "reason": repr(failure)})
            # The answer is lost but messages may have been handed out with it; they come back with the session's end.
            if self.generation == session:
                self._session.condemn()
            return []
        return taken if self.generation == session else []

    async def forget(self, deliveries: Sequence[Delivery]) -> None:
        await self._forgetting.submit([_tag(delivery) for delivery in deliveries])

    async def give_back(self, queue: str, deliveries: Sequence[Delivery]) -> None:
        ids = [_tag(delivery).id for delivery in deliveries]
        session = _tag(deliveries[0]).session
        await self._settle(session, lambda: queries.give_back(self._pool, ids, session=session))

    async def bury(self, queue: str, delivery: Delivery, reason: str) -> None:
        with _explained("dead-letter a message"):
            if not self._routes.find(Address(DEAD, "")):
                await self._load_routes()
            graves = [grave.name for grave in self._routes.find(Address(DEAD, ""))]
            if not graves:
                raise Unroutable("There is no queue for dead letters: declare `topology.DEAD_LETTER_QUEUE`.")
            await queries.bury(self._pool, _tag(delivery), graves, dead_letter_headers(queue, reason))

    async def _publish_calls(self, calls: Sequence[tuple[Outgoing, ...]]) -> Sequence[BaseException | None]:
        for _ in range(ROUTING_ATTEMPTS):
            outcomes = [self._unroutable(call) for call in calls]
            routed = [(queue, message) for call in calls for message in call for queue in self._find(message)]
            if routed and await queries.store(self._storing, self._version, routed):
                return outcomes
            if not routed and await queries.topology_version(self._pool) == self._version:
                return outcomes
            await self._load_routes()
        raise BrokerUnavailable("Queues are changing too fast to publish.")

    def _find(self, message: Outgoing) -> tuple[Queue, ...]:
        return self._routes.find(message.address)

    def _unroutable(self, call: Sequence[Outgoing]) -> Unroutable | None:
        for message in call:
            if not self._find(message):
                exchange, key = message.address
                return Unroutable(f"No queue takes {key!r} of the exchange {exchange.name!r}.")
        return None

    async def _load_routes(self) -> None:
        self._version, queues = await queries.topology(self._pool)
        self._routes = Routes(queues)

    async def _forget_calls(self, calls: Sequence[list[Tag]]) -> Sequence[BaseException | None]:
        session = self.generation
        ids = [tag.id for call in calls for tag in call if tag.session == session]
        if ids:
            await self._settle(session, lambda: queries.forget(self._pool, ids, session=session))
        return [None] * len(calls)

    async def _settle(self, session: int, statement: Callable[[], Awaitable[None]]) -> None:
        """Settle messages; tried again for as long as they are ours, for when they are not it is void anyway."""
        failures = 0
        while session != NONE and self.generation == session:
            try:
                await statement()
                return
            except OUTAGE as failure:
                failures += 1
                log.warning("broker.settle_failed", extra={"reason": repr(failure), "failures": failures})
            await asyncio.sleep(full_jitter(failures, base=FIRST_PAUSE, cap=LONGEST_PAUSE).total_seconds())


@asynccontextmanager
async def open_postgres_broker(url: str, *, name: str, deadline: timedelta = DEADLINE) -> AsyncIterator[PostgresBroker]:
    """Connect to the broker in a database and create its tables when there are none.

    Raises `BrokerUnavailable` when the database cannot be reached. No call takes much longer than `deadline`.
    """
    database = Database(url, settings={"application_name": name}, connect=deadline)
    bells = Bells()
    session = Session(database, bells)
    async with AsyncExitStack() as stack:
        try:
            await database.check_pooling()
            await session.open()
            stack.push_async_callback(session.close)
            stack.enter_context(database.condemnations(session.condemned))
            storing = Pool(database, most=CONNECTIONS, statement=deadline)
            # What a crash of the server may forget of these is only that a message was taken or settled, and then it
            # is delivered again; so they do not wait for the disk.
            pool = Pool(database, most=CONNECTIONS, statement=deadline, settings={"synchronous_commit": "off"})
            for one in (storing, pool):
                await stack.enter_async_context(open_sessions(one))
        except (*OUTAGE, ValueError, Pooled) as failure:
            raise BrokerUnavailable(f"Cannot use PostgreSQL at {shown(url)} as the broker: {failure}") from failure
        stack.push_async_callback(end, asyncio.create_task(session.keep(), name="broker_session"))
        broker = PostgresBroker(storing, pool, session, bells, deadline=deadline)
        await stack.enter_async_context(broker.running())
        yield broker


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except OUTAGE as failure:
        raise BrokerUnavailable(f"PostgreSQL could not {doing}: {failure or type(failure).__name__}") from failure


def _tag(delivery: Delivery) -> Tag:
    return cast("Tag", delivery.tag)
