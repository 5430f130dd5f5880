"""The broker in a directory: for one host, without any server. Every process that uses it runs as the same user.

A message is a file that is renamed from `incoming` to `processing`, by which it belongs to one consumer, and removed
when it is acknowledged (see `filesystem_store`). What a process held that died is put back by whoever looks next.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from common.batching import Batcher
from common.broker.base import Address, BrokerUnavailable, Consumer, Delivery, Outgoing, Queue, Unroutable
from common.broker.dead_letters import dead_letter_headers
from common.broker.filesystem_message import FileMessage
from common.broker.filesystem_names import FileName
from common.broker.filesystem_store import FileStore, FileTag, named
from common.broker.filesystem_topology import FileTopology
from common.broker.filesystem_watch import FolderWatch
from common.broker.pull_consumer import Bells, PullConsumer
from common.broker.topology import DEAD
from common.errors import Invalid

log = logging.getLogger(__name__)

CALLS_AT_ONCE = 500
ROUTING_ATTEMPTS = 10
# With inotify the poll is for what nothing rings for: that a process has died.
WATCHED_POLL = timedelta(seconds=1)
FIRST_POLL = timedelta(milliseconds=20)
LONGEST_POLL = timedelta(seconds=1)
LOOK_FOR_THE_DEAD = timedelta(seconds=1)

Filed = tuple[str, FileName, FileMessage]


class WrongFileUrl(Invalid, ValueError):
    """A file URL that names no directory of this host."""


class FileBroker:
    """See `base.Broker`."""

    # A rename is not undone by an outage: what is held stays held.
    generation = 0
    is_connected = True

    def __init__(self, store: FileStore, topology: FileTopology) -> None:
        self._store = store
        self._topology = topology
        self._bells = Bells()
        self._watch = FolderWatch(self._bells.ring)
        self._looked_at = float("-inf")
        self._publishing: Batcher[tuple[Outgoing, ...], None] = Batcher(self._publish_calls, limit=CALLS_AT_ONCE)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work while inside."""
        self._watch.open()
        try:
            await asyncio.to_thread(self._store.put_back_of_the_dead)
            await asyncio.to_thread(self._store.put_back_of_the_forgotten)
            async with self._publishing:
                yield
        finally:
            await self._watch.close()
            await asyncio.to_thread(self._store.close)

    async def declare(self, *queues: Queue, keep: bool = True) -> None:
        with _explained("declare queues"):
            await asyncio.to_thread(self._topology.declare, queues)
        for queue in queues:
            self._bells.ring(queue.name)

    async def delete(self, queue: str) -> None:
        with _explained("delete a queue"):
            await asyncio.to_thread(self._topology.delete, queue)

    async def publish(self, *messages: Outgoing) -> None:
        if messages:
            with _explained("publish"):
                await self._publishing.submit(messages)

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumer]:
        first = WATCHED_POLL if self._watch.works else FIRST_POLL
        with self._bells.listening(queue) as bell:
            consumer = PullConsumer(self, queue, prefetch=prefetch, bell=bell, poll=first, longest_poll=LONGEST_POLL)
            try:
                yield consumer
            finally:
                await consumer.close()

    async def depth(self, queue: str) -> int:
        with _explained("count messages"):
            return await asyncio.to_thread(self._store.depth, queue)

    async def check(self) -> None:
        with _explained("be written to"):
            await asyncio.to_thread(self._store.session.touch)

    async def reconnect(self) -> None:
        """There is no connection: everything that is held stays held. Consumers look again."""
        self._bells.ring_all()

    async def take(self, queue: str, limit: int) -> list[Delivery]:
        try:
            await self._look_for_the_dead()
            self._watch.watch(queue, self._store.incoming(queue))
            return await asyncio.to_thread(self._store.take, queue, limit)
        except OSError as failure:
            log.warning("broker.take_failed", extra={"queue": queue, "reason": str(failure)})
            return []

    async def forget(self, deliveries: Sequence[Delivery]) -> None:
        with _explained("remove messages"):
            await asyncio.to_thread(self._store.forget, [_tag(delivery) for delivery in deliveries])

    async def give_back(self, queue: str, deliveries: Sequence[Delivery]) -> None:
        with _explained("take messages back"):
            await asyncio.to_thread(self._store.give_back, [_tag(delivery) for delivery in deliveries])
        self._bells.ring(queue)

    async def bury(self, queue: str, delivery: Delivery, reason: str) -> None:
        buried = FileMessage(
            delivery.message_id,
            delivery.priority,
            _tag(delivery).type,
            delivery.body,
            dead_letter_headers(queue, reason),
        )
        with _explained("dead-letter a message"):
            filed = [self._filed(grave, buried) for grave in self._topology.routes().find(Address(DEAD, ""))]
            if not filed:
                raise Unroutable("There is no queue for dead letters: declare `topology.DEAD_LETTER_QUEUE`.")
            await asyncio.to_thread(self._store.store, filed)
            await self.forget([delivery])
        self._ring(filed)

    async def _publish_calls(self, calls: Sequence[tuple[Outgoing, ...]]) -> Sequence[BaseException | None]:
        filed: list[Filed] = []
        for _ in range(ROUTING_ATTEMPTS):
            routes = self._topology.routes()
            outcomes: list[BaseException | None] = [None] * len(calls)
            filed = []
            for place, call in enumerate(calls):
                for message in call:
                    queues = routes.find(message.address)
                    filed += [self._filed(queue, _message(message), message.expires_after) for queue in queues]
                    if not queues:
                        exchange, key = message.address
                        outcomes[place] = Unroutable(f"No queue takes {key!r} of the exchange {exchange.name!r}.")
            try:
                await asyncio.to_thread(self._store.store, filed)
            except FileNotFoundError:
                # A queue was deleted between reading the bindings and writing; what was stored may come twice.
                continue
            self._ring(filed)
            return outcomes
        raise BrokerUnavailable("Queues are changing too fast to publish.")

    def _filed(self, queue: Queue, message: FileMessage, expires_after: timedelta | None = None) -> Filed:
        now = self._store.stamp()
        expires = 0 if expires_after is None else now + max(1, round(expires_after.total_seconds() * 1e9))
        publisher = self._store.session.name
        name = named(message, has_priorities=queue.has_priorities, time=now, expires=expires, publisher=publisher)
        return queue.name, name, message

    def _ring(self, filed: Sequence[Filed]) -> None:
        for queue in {queue for queue, _, _ in filed}:
            self._bells.ring(queue)

    async def _look_for_the_dead(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < LOOK_FOR_THE_DEAD.total_seconds():
            return
        self._looked_at = now
        for queue in await asyncio.to_thread(self._store.put_back_of_the_dead):
            self._bells.ring(queue)


@asynccontextmanager
async def open_file_broker(url: str) -> AsyncIterator[FileBroker]:
    """Open the broker in the directory of a `file:///` URL, which is created when there is none.

    Raises `WrongFileUrl` for a URL without a directory and `BrokerUnavailable` when the directory cannot be used.
    """
    root = root_of(url)
    try:
        store = await asyncio.to_thread(FileStore, root)
    except OSError as failure:
        raise BrokerUnavailable(f"Cannot use the directory {root} as the broker: {failure.strerror}") from failure
    broker = FileBroker(store, FileTopology(root))
    async with broker.running():
        yield broker


def root_of(url: str) -> Path:
    """Return the directory that a URL names."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or path.strip("/") == "" or "\0" in path:
        raise WrongFileUrl("broker_url: a file URL names a directory of this host, as in file:///var/lib/chiffon/bus")
    return Path(path)


def _message(message: Outgoing) -> FileMessage:
    return FileMessage(str(message.message_id), message.priority, message.type, message.body)


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise BrokerUnavailable(f"The directory of the broker could not {doing}: {failure}") from failure


def _tag(delivery: Delivery) -> FileTag:
    return cast("FileTag", delivery.tag)
