"""The consumer of the backends that are asked for messages (`memory`, `postgresql`), not pushing them."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from common.broker.base import ConsumerCancelled, Delivery
from common.loop import Wake


class Bells:
    """Wakes the consumers of a queue when there may be something for them."""

    def __init__(self) -> None:
        self._bells: defaultdict[str, set[Wake]] = defaultdict(set)

    def ring(self, queue: str) -> None:
        for bell in self._bells.get(queue, ()):
            bell.ring()

    def ring_all(self) -> None:
        for queue in self._bells:
            self.ring(queue)

    @contextmanager
    def listening(self, queue: str) -> Iterator[Wake]:
        """Lend a bell that rings for a queue."""
        bell = Wake()
        self._bells[queue].add(bell)
        try:
            yield bell
        finally:
            self._bells[queue].discard(bell)
            if not self._bells[queue]:
                del self._bells[queue]


class Source(Protocol):
    """Where a consumer takes messages from. A delivery belongs to a generation and is worth nothing after it."""

    @property
    def generation(self) -> int:
        """The number of the current connection; every delivery of an earlier one is void."""
        ...

    async def take(self, queue: str, limit: int) -> list[Delivery]:
        """Hand out the best waiting messages, at most `limit`, best first; none when there are none, or no connection.

        All of them belong to the generation that is current when this returns.
        """
        ...

    async def forget(self, deliveries: Sequence[Delivery]) -> None:
        """Remove messages for good."""
        ...

    async def give_back(self, queue: str, deliveries: Sequence[Delivery]) -> None:
        """Let messages be delivered again."""
        ...

    async def bury(self, queue: str, delivery: Delivery, reason: str) -> None:
        """Move a message to the dead letters."""
        ...


class PullConsumer:
    """Takes from a source what it may hold, and settles what it holds; see `base.Consumer`."""

    def __init__(self, source: Source, queue: str, *, prefetch: int, bell: Wake, poll: timedelta) -> None:
        self._source = source
        self._queue = queue
        self._prefetch = prefetch
        self._bell = bell
        self._poll = poll
        self._generation = source.generation
        self._held: set[Delivery] = set()
        # A `receive` that is given up leaves its request behind, and the next one gets what it brings, so that no
        # message is handed out to nobody.
        self._request: asyncio.Task[list[Delivery]] | None = None
        self._ready: list[Delivery] = []
        self._receiving = asyncio.Lock()
        self._cancelled = False

    async def receive(self, limit: int = 1) -> Sequence[Delivery]:
        async with self._receiving:
            while not self._cancelled:
                await self._fill(limit)
                if self._ready:
                    received, self._ready = self._ready[:limit], self._ready[limit:]
                    self._held.update(received)
                    return received
                await self._bell.wait(self._poll)
            raise ConsumerCancelled(f"The consumer of {self._queue!r} was cancelled.")

    async def ack(self, *deliveries: Delivery) -> None:
        mine = self._release(deliveries)
        if mine:
            await self._source.forget(mine)

    async def requeue(self, *deliveries: Delivery) -> None:
        mine = self._release(deliveries)
        if mine:
            await self._source.give_back(self._queue, mine)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        self._drop_void()
        if delivery in self._held:
            await self._source.bury(self._queue, delivery, reason)
            self._release([delivery])

    async def cancel(self) -> None:
        self._cancelled = True
        self._bell.ring()
        if self._request is not None:
            await asyncio.wait([self._request])
            self._collect()
        self._drop_void()
        ready, self._ready = self._ready, []
        if ready:
            await self._source.give_back(self._queue, ready)

    async def close(self) -> None:
        """Give back whatever is not settled."""
        try:
            await self.cancel()
        finally:
            await self.requeue(*self._held)

    async def _fill(self, limit: int) -> None:
        """Bring messages from the source, as many as are wanted and may be held."""
        self._drop_void()
        if self._request is None:
            room = min(limit, self._prefetch - len(self._held)) - len(self._ready)
            if room <= 0:
                return
            self._request = asyncio.create_task(self._source.take(self._queue, room))
        # Waited for, not awaited: cancelling the wait leaves the request alone.
        await asyncio.wait([self._request])
        self._collect()

    def _collect(self) -> None:
        request, self._request = self._request, None
        self._drop_void()
        if request is not None:
            self._ready += request.result()

    def _release(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        self._drop_void()
        mine = [delivery for delivery in dict.fromkeys(deliveries) if delivery in self._held]
        was_full = len(self._held) >= self._prefetch
        self._held.difference_update(mine)
        if was_full and mine:
            self._bell.ring()
        return mine

    def _drop_void(self) -> None:
        if self._generation != self._source.generation:
            self._generation = self._source.generation
            self._held.clear()
            self._ready.clear()
