"""Keep a consumer open on a queue, and hand over what arrives, a batch at a time."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Self

from common.broker.base import Broker, Consumer, Delivery


class QueueReader(ABC):
    """Reads one queue; one `run_once` is one batch. What `deal` does not settle before it fails is delivered again.

    `well` is called whenever the consumer is open and about to wait, for that can last.
    """

    def __init__(self, broker: Broker, queue: str, *, prefetch: int, batch: int, well: Callable[[], None]) -> None:
        self.queue = queue
        self._broker = broker
        self._prefetch = prefetch
        self._batch = batch
        self._well = well
        self._consumer: Consumer | None = None
        self._stack = AsyncExitStack()
        self._reopen = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @abstractmethod
    async def deal(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        """Deal with a batch, and settle it."""

    async def run_once(self) -> int:
        """Deal with what has arrived, waiting for the first message; returns how many there were."""
        try:
            if self._consumer is None:
                opened = self._broker.consume(self.queue, prefetch=self._prefetch)
                self._consumer = await self._stack.enter_async_context(opened)
            deliveries = await self._receive(self._consumer)
            await self.deal(self._consumer, deliveries)
        except BaseException:
            # Closing the consumer gives back what is not settled.
            self._consumer = None
            await self._stack.aclose()
            raise
        return len(deliveries)

    def reopen(self) -> None:
        """Open the consumer anew, for it seems to hear nothing; what is being dealt with is finished first."""
        self._reopen.set()

    async def _receive(self, consumer: Consumer) -> Sequence[Delivery]:
        self._well()
        receiving = asyncio.create_task(consumer.receive(self._batch), name="receive")
        reopening = asyncio.create_task(self._reopen.wait(), name="reopen")
        try:
            await asyncio.wait({receiving, reopening}, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            self._reopen.clear()
            raise ConnectionResetError("the consumer is opened anew")
        finally:
            receiving.cancel()
            reopening.cancel()
            await asyncio.gather(receiving, reopening, return_exceptions=True)
