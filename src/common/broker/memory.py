"""The broker of one process: nothing survives it, and everybody shares the event loop."""

import heapq
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import cast

from common.broker.base import Address, Consumer, Delivery, Outgoing, Queue, Unroutable
from common.broker.dead_letters import dead_letter_headers
from common.broker.pull_consumer import Bells, PullConsumer
from common.broker.routing import Routes
from common.broker.topology import DEAD

# Every change rings the bell; the poll only bounds what a mistake here could cost.
POLL = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Message:
    """What a queue holds."""

    body: bytes
    message_id: str
    priority: int
    number: int
    expires_at: float | None
    redelivered: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class MemoryQueue:
    """The messages that wait in one queue, best first."""

    def __init__(self, *, has_priorities: bool) -> None:
        self._has_priorities = has_priorities
        self._heap: list[tuple[int, int, Message]] = []

    def put(self, message: Message) -> None:
        rank = -message.priority if self._has_priorities else 0
        heapq.heappush(self._heap, (rank, message.number, message))

    def take(self) -> Message | None:
        """Remove and return the best message that has not expired."""
        while self._heap:
            message = heapq.heappop(self._heap)[2]
            if not _expired(message):
                return message
        return None

    def __len__(self) -> int:
        return sum(not _expired(message) for _, _, message in self._heap)


class MemoryBroker:
    """See `base.Broker`."""

    generation = 0
    is_connected = True

    def __init__(self) -> None:
        self._routes = Routes()
        self._queues: dict[str, MemoryQueue] = {}
        self._bells = Bells()
        self._numbers = count(1)

    async def declare(self, *queues: Queue, keep: bool = True) -> None:
        for queue in queues:
            self._routes.add(queue)
            self._queues.setdefault(queue.name, MemoryQueue(has_priorities=queue.has_priorities))

    async def delete(self, queue: str) -> None:
        self._routes.remove(queue)
        self._queues.pop(queue, None)

    async def publish(self, *messages: Outgoing) -> None:
        lost: list[Address] = []
        for message in messages:
            expires_at = (
                None if message.expires_after is None else time.monotonic() + message.expires_after.total_seconds()
            )
            if not self._store(
                message.address,
                Message(message.body, str(message.message_id), message.priority, next(self._numbers), expires_at),
            ):
                lost.append(message.address)
        if lost:
            raise Unroutable(f"No queue takes {lost[0].routing_key!r} of the exchange {lost[0].exchange.name!r}.")

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumer]:
        with self._bells.listening(queue) as bell:
            consumer = PullConsumer(self, queue, prefetch=prefetch, bell=bell, poll=POLL)
            try:
                yield consumer
            finally:
                await consumer.close()

    async def depth(self, queue: str) -> int:
        return len(self._queues.get(queue, ()))

    async def check(self) -> None:
        pass

    async def reconnect(self) -> None:
        """There is no connection: everything that is held stays held."""

    async def take(self, queue: str, limit: int) -> list[Delivery]:
        waiting = self._queues.get(queue)
        deliveries: list[Delivery] = []
        while waiting is not None and len(deliveries) < limit:
            message = waiting.take()
            if message is None:
                break
            deliveries.append(
                Delivery(
                    body=message.body,
                    message_id=message.message_id,
                    priority=message.priority,
                    redelivered=message.redelivered,
                    headers=message.headers,
                    tag=(waiting, message),
                )
            )
        return deliveries

    async def forget(self, deliveries: Sequence[Delivery]) -> None:
        """Nothing to do: a message that was taken is in no queue."""

    async def give_back(self, queue: str, deliveries: Sequence[Delivery]) -> None:
        # Into the very queue that it came from: if that was deleted meanwhile, its messages are gone with it.
        for delivery in deliveries:
            origin, message = _origin(delivery)
            origin.put(replace(message, redelivered=True))
        self._bells.ring(queue)

    async def bury(self, queue: str, delivery: Delivery, reason: str) -> None:
        buried = replace(
            _origin(delivery)[1],
            number=next(self._numbers),
            expires_at=None,
            redelivered=False,
            headers=dead_letter_headers(queue, reason),
        )
        if not self._store(Address(DEAD, ""), buried):
            raise Unroutable("There is no queue for dead letters: declare `topology.DEAD_LETTER_QUEUE`.")

    def _store(self, address: Address, message: Message) -> bool:
        queues = self._routes.find(address)
        for queue in queues:
            self._queues[queue.name].put(message)
            self._bells.ring(queue.name)
        return bool(queues)


def _expired(message: Message) -> bool:
    return message.expires_at is not None and message.expires_at <= time.monotonic()


def _origin(delivery: Delivery) -> tuple[MemoryQueue, Message]:
    origin, message = cast("tuple[MemoryQueue, Message]", delivery.tag)
    return origin, message
