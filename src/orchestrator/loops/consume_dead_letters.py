"""Take what ended in the dead letters of the broker into the ledger, where people can see it and settle it."""

from collections.abc import Callable, Sequence

from common.broker import topology
from common.broker.base import Broker, Consumer, Delivery
from orchestrator.dead_letters.service import DeadLetterService
from orchestrator.loops.queue_reader import QueueReader

# Anything can be in there, also very large messages, so only a few are held at a time.
BATCH = 16


class ConsumeDeadLetters(QueueReader):
    """Notes dead letters. They are acknowledged once they are stored, so none is lost."""

    def __init__(self, broker: Broker, letters: DeadLetterService, *, well: Callable[[], None] = lambda: None) -> None:
        super().__init__(broker, topology.DEAD_LETTERS, prefetch=BATCH, batch=BATCH, well=well)
        self._letters = letters

    async def deal(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        await self._letters.note(deliveries)
        await consumer.ack(*deliveries)
