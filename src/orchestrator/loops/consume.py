"""How every reply queue is consumed: what has arrived together is handled together, and nothing readable is lost.

A message that cannot be read, that was not sent by whom it speaks for, or that breaks its handler when handled alone,
goes to the dead letters with the reason. A handler that fails because something is away, full or overloaded keeps the
messages: they return to the queue and are tried again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

from pydantic import BaseModel

from common.broker.base import Broker, Consumer, Delivery
from common.errors import Unavailable
from common.protocol import MOST_REPLY_BYTES, MessageEnvelope, UnreadableMessage, decode
from orchestrator.database.pool import is_outage
from orchestrator.loops.queue_reader import QueueReader
from orchestrator.loops.senders import Senders

log = logging.getLogger(__name__)

BATCH = 200

Taken = tuple[Delivery, MessageEnvelope, BaseModel]


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
        await self._handle(consumer, await self._read(consumer, deliveries))
        if self._handler.gather and len(deliveries) < BATCH:
            await asyncio.sleep(self._handler.gather.total_seconds())

    async def _read(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> list[Taken]:
        readable: list[Taken] = []
        for delivery in deliveries:
            try:
                envelope = decode(delivery.body, limit=MOST_REPLY_BYTES)
            except UnreadableMessage as error:
                await self._bury(consumer, delivery, str(error))
                continue
            if not isinstance(envelope.payload, self._handler.accepts):
                reason = f"a {envelope.type} does not belong in {self.queue}"
                await self._bury(consumer, delivery, reason, envelope)
            elif objection := self._senders.objection(delivery, envelope, envelope.payload):
                await self._bury(consumer, delivery, objection, envelope)
            else:
                readable.append((delivery, envelope, envelope.payload))
        return readable

    async def _handle(self, consumer: Consumer, taken: list[Taken]) -> None:
        if not taken:
            return
        try:
            await self._handler.handle([payload for _, _, payload in taken])
        except Exception as failure:
            if isinstance(failure, Unavailable) or is_outage(failure):
                raise
            if len(taken) == 1:
                [(delivery, envelope, _)] = taken
                log.exception("message.unhandled", extra=_ids(delivery, envelope))
                await self._bury(consumer, delivery, f"{type(failure).__name__}: {failure}", envelope)
                return
            for one in taken:
                await self._handle(consumer, [one])
        else:
            await consumer.ack(*(delivery for delivery, _, _ in taken))

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
