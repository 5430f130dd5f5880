"""How every reply queue is consumed: what has arrived together is handled together, and nothing readable is lost.

A message that cannot be read, that was not sent by whom it speaks for, or that breaks its handler when handled alone,
goes to the dead letters with the reason. Of results that came as one message only the one that is to blame does: they
return to the queue one by one. A handler that fails because something is away, full or overloaded keeps the messages:
they return to the queue and are tried again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

from pydantic import BaseModel

from common.broker.base import Broker, Consumer, Delivery, Outgoing
from common.errors import Unavailable
from common.protocol import MOST_REPLY_BYTES, MessageEnvelope, UnreadableMessage, WorkResultsEnvelope, decode
from orchestrator.database.pool import is_outage
from orchestrator.dead_letters.rules import replay_address
from orchestrator.loops.batches import SINGLE, Taken, apart, in_turn, read_damaged
from orchestrator.loops.queue_reader import QueueReader
from orchestrator.loops.senders import Senders

log = logging.getLogger(__name__)

BATCH = 200


class Handler(Protocol):
    """What is done with the messages of one queue. `prefetch`: how many may be held here at a time.

    `gather`: how long messages may gather after some were dealt with, where nobody waits for the answer.
    """

    queue: str
    prefetch: int
    gather: timedelta
    accepts: tuple[type[BaseModel], ...]

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        """Deal with payloads of the accepted types, all or none; when it returns, they are acknowledged."""
        ...


class ConsumeQueue(QueueReader):
    """Takes messages from a queue and hands them to a handler."""

    def __init__(
        self, broker: Broker, handler: Handler, *, senders: Senders, well: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(broker, handler.queue, prefetch=handler.prefetch, batch=BATCH, well=well)
        self._handler = handler
        self._senders = senders

    async def deal(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        taken = [one for delivery in deliveries if (one := await self._read(consumer, delivery)) is not None]
        for together in in_turn(taken, most=BATCH):
            await self._handle(consumer, together)
        if self._handler.gather and len(deliveries) < BATCH:
            await asyncio.sleep(self._handler.gather.total_seconds())

    async def _read(self, consumer: Consumer, delivery: Delivery) -> Taken | None:
        """Return a message that is to be handled; any other is settled."""
        results: Sequence[bytes] = ()
        try:
            envelope = decode(delivery.body, limit=MOST_REPLY_BYTES)
        except UnreadableMessage as error:
            damaged = read_damaged(delivery.body)
            if damaged is None:
                await self._bury(consumer, delivery, str(error))
                return None
            envelope, results = damaged
        taken = Taken(delivery, envelope)
        if not all(isinstance(payload, self._handler.accepts) for payload in taken.payloads):
            reason = f"a {envelope.type} does not belong in {self.queue}"
            await self._bury(consumer, delivery, reason, envelope)
        elif objection := await self._senders.objection(delivery, envelope, envelope.payload):
            await self._bury(consumer, delivery, objection, envelope)
        elif results:
            await self._take_apart(consumer, delivery, results)
        else:
            return taken
        return None

    async def _handle(self, consumer: Consumer, taken: Sequence[Taken]) -> None:
        try:
            await self._handler.handle([payload for one in taken for payload in one.payloads])
        except Exception as failure:
            if isinstance(failure, Unavailable) or is_outage(failure):
                raise
            if len(taken) > 1:
                for one in taken:
                    await self._handle(consumer, [one])
                return
            [(delivery, envelope)] = taken
            if isinstance(envelope, WorkResultsEnvelope):
                await self._take_apart(consumer, delivery, apart(envelope))
                return
            log.exception("message.unhandled", extra=_ids(delivery, envelope))
            await self._bury(consumer, delivery, f"{type(failure).__name__}: {failure}", envelope)
        else:
            await consumer.ack(*(one.delivery for one in taken))

    async def _take_apart(self, consumer: Consumer, delivery: Delivery, results: Sequence[bytes]) -> None:
        """Put each of the results into the queue as a message of its own, in place of the one in which they came.

        Whether the sender may say that is judged by then, and not again.
        """
        log.warning("results.taken_apart", extra={"message_id": delivery.message_id, "results": len(results)})
        address = replay_address(self.queue)
        # Stored before the original goes: a crash in between brings some twice, which changes nothing.
        await self._broker.publish(*(Outgoing(address, body, type=SINGLE) for body in results))
        await consumer.ack(delivery)

    async def _bury(
        self, consumer: Consumer, delivery: Delivery, reason: str, envelope: MessageEnvelope | None = None
    ) -> None:
        log.warning("message.dead_lettered", extra={"queue": self.queue, "reason": reason, **_ids(delivery, envelope)})
        await consumer.dead_letter(delivery, reason)


def _ids(delivery: Delivery, envelope: MessageEnvelope | None) -> dict[str, object]:
    ids: dict[str, object] = {"message_id": delivery.message_id}
    if envelope is not None:
        ids |= {"trace_id": envelope.trace_id, "request_id": envelope.request_id}
    return ids
