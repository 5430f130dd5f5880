"""Take what ended in the dead letters of the broker into the ledger, where people can see it and settle it."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from common.broker import topology
from common.broker.base import Broker, Consumer
from orchestrator.dead_letters.service import DeadLetterService

# Anything can be in there, also very large messages, so only a few are held at a time.
BATCH = 16


class ConsumeDeadLetters:
    """Notes dead letters; one `run_once` is one batch. Acknowledged once they are stored, so none is lost."""

    queue = topology.DEAD_LETTERS

    def __init__(self, broker: Broker, letters: DeadLetterService, *, well: Callable[[], None] = lambda: None) -> None:
        """`well` is called whenever the consumer is open and about to wait."""
        self._broker = broker
        self._well = well
        self._letters = letters
        self._consumer: Consumer | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "ConsumeDeadLetters":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def run_once(self) -> int:
        """Note what has arrived, waiting for the first; returns how many there were."""
        try:
            if self._consumer is None:
                self._consumer = await self._stack.enter_async_context(self._broker.consume(self.queue, prefetch=BATCH))
            self._well()
            deliveries = await self._consumer.receive(BATCH)
            await self._letters.note(deliveries)
            await self._consumer.ack(*deliveries)
        except BaseException:
            # Closing the consumer gives back what is not stored, so that it is delivered again.
            self._consumer = None
            await self._stack.aclose()
            raise
        return len(deliveries)
