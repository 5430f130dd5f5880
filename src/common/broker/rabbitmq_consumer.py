"""Consume from RabbitMQ: one channel for each consumer, opened anew on every generation."""

import asyncio
import heapq
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import NamedTuple, cast

from aio_pika.abc import AbstractChannel
from aiormq.exceptions import AMQPChannelError
from pamqp.commands import Basic
from pamqp.common import FieldTable

from common.backoff import full_jitter
from common.broker.base import Address, BrokerUnavailable, ConsumerCancelled, Delivery
from common.broker.dead_letters import dead_letter_headers
from common.broker.rabbitmq_attachment import Attachment
from common.broker.rabbitmq_confirms import Message
from common.broker.rabbitmq_connection import Generation, Link, within
from common.broker.rabbitmq_frames import Delivered, read_properties, short_enough
from common.broker.rabbitmq_publisher import PERSISTENT, Publisher
from common.broker.topology import DEAD
from common.loop import Wake

log = logging.getLogger(__name__)

FIRST_PAUSE = timedelta(milliseconds=200)
LONGEST_PAUSE = timedelta(seconds=3)
# Every change rings the bell; this only bounds what a mistake here could cost.
POLL = timedelta(seconds=30)


NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Tag(NamedTuple):
    """Which delivery of which attachment this was, and the payload of its header, to send it on."""

    attachment: Attachment
    number: int
    header: bytes


class RabbitConsumer:
    """Takes from one queue; see `base.Consumer`. Works while `keep` runs.

    An *attachment* is the time between subscribing on one generation and its loss.
    """

    def __init__(
        self,
        link: Link[None],
        publisher: Publisher,
        queue: str,
        *,
        prefetch: int,
        has_priorities: Callable[[], bool],
        deadline: timedelta,
    ) -> None:
        self._link = link
        self._publisher = publisher
        self._queue = queue
        self._prefetch = prefetch
        self._has_priorities = has_priorities
        self._deadline = deadline
        self._bell = Wake()
        self._receiving = asyncio.Lock()
        self._cancelled = False
        self._attachment: Attachment | None = None
        self._generation: Generation[None] | None = None
        self._channel: AbstractChannel | None = None
        self._consumer_tag: str | None = None
        self._waiting: list[tuple[int, int, Delivery]] = []

    async def receive(self, limit: int = 1) -> Sequence[Delivery]:
        async with self._receiving:
            while not self._cancelled:
                if self._waiting:
                    return [heapq.heappop(self._waiting)[2] for _ in range(min(limit, len(self._waiting)))]
                await self._bell.wait(POLL)
            raise ConsumerCancelled(f"The consumer of {self._queue!r} was cancelled.")

    async def ack(self, *deliveries: Delivery) -> None:
        self._settle(Attachment.ack, deliveries)

    async def requeue(self, *deliveries: Delivery) -> None:
        self._settle(Attachment.requeue, deliveries)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        if not self._held((delivery,)):
            return
        buried = self._buried(delivery, reason)
        # The copy is confirmed before the original goes: a crash in between leaves two, the other way round none.
        await self._publisher.publish([buried])
        await self.ack(delivery)

    async def cancel(self) -> None:
        self._cancelled = True
        self._bell.ring()
        if self._channel is None or self._consumer_tag is None:
            return
        tag, self._consumer_tag = self._consumer_tag, None
        try:
            underlay = await self._channel.get_underlay_channel()
            await within(self._deadline, underlay.basic_cancel(tag))
        except (BrokerUnavailable, AMQPChannelError) as failure:
            self._condemn(f"a consumer could not be cancelled: {failure}")
        await self.requeue(*(delivery for _, _, delivery in self._waiting))
        self._waiting.clear()

    async def keep(self) -> None:
        """Subscribe on every generation, until there is nothing more to take."""
        failures = 0
        while not self._cancelled:
            generation = await self._link.generation()
            try:
                attached = await self._attach(generation)
            except Exception as failure:
                # Whatever half of a subscription there is may still deliver; nothing of it belongs to the next one.
                self._detach()
                generation.condemn(repr(failure))
                attached = False
            if attached:
                failures = 0
                await generation.lost.wait()
                self._detach()
            else:
                failures += 1
                await asyncio.sleep(full_jitter(failures, base=FIRST_PAUSE, cap=LONGEST_PAUSE).total_seconds())

    async def close(self) -> None:
        """Close the channel, with which the broker takes back whatever is not settled."""
        self._cancelled = True
        self._bell.ring()
        generation, channel, attachment = self._generation, self._channel, self._attachment
        self._detach()
        if generation is not None and channel is not None:
            await generation.close_channel(channel)
        if attachment is not None:
            attachment.end()

    async def _attach(self, generation: Generation[None]) -> bool:
        """Subscribe; False when the broker refuses, which is logged."""
        channel = await generation.open_channel(confirms=False)
        self._generation, self._channel = generation, channel
        underlay = await channel.get_underlay_channel()
        attachment = self._attachment = Attachment(generation.wire, underlay.number, self._deliver)

        def cancelled_by_broker(_frame: object) -> None:
            if attachment is self._attachment:
                generation.condemn(f"the broker cancelled the consumer of {self._queue!r}")

        underlay.on_consumer_cancel_callbacks.add(cancelled_by_broker)
        try:
            await within(self._deadline, underlay.basic_qos(prefetch_count=self._prefetch))
            subscribed = await within(self._deadline, underlay.basic_consume(self._queue, _nothing))
        except AMQPChannelError as refusal:
            log.warning("broker.consume_refused", extra={"queue": self._queue, "reason": str(refusal)})
            attachment.end()
            self._detach()
            return False
        self._consumer_tag = subscribed.consumer_tag
        generation.watch(channel)
        if self._cancelled:
            await self.cancel()
        return True

    def _detach(self) -> None:
        self._attachment = self._generation = self._channel = self._consumer_tag = None
        self._waiting.clear()

    def _deliver(self, attachment: Attachment, delivered: Delivered, header: bytes, body: bytes) -> None:
        if attachment is not self._attachment:
            return
        properties = read_properties(header)
        priority = properties.priority or 0
        delivery = Delivery(
            body=body,
            message_id=properties.message_id or "",
            priority=priority,
            redelivered=delivered.redelivered,
            headers=_texts(properties.headers) if properties.headers else NO_HEADERS,
            tag=Tag(attachment, delivered.number, header),
            sender=properties.user_id,
            routing_key=delivered.routing_key,
        )
        rank = -priority if self._has_priorities() else 0
        heapq.heappush(self._waiting, (rank, delivered.number, delivery))
        self._bell.ring()

    def _settle(self, how: Callable[[Attachment, set[int]], None], deliveries: Sequence[Delivery]) -> None:
        held = self._held(deliveries)
        if self._attachment is None or not held:
            return
        try:
            how(self._attachment, held)
        except BrokerUnavailable as failure:
            # The channel is gone, and the broker delivers its messages again.
            log.info("broker.settle_void", extra={"queue": self._queue, "reason": str(failure)})

    def _held(self, deliveries: Sequence[Delivery]) -> set[int]:
        """Return the numbers of those deliveries that are still to be settled here."""
        tags = map(_tag, deliveries)
        return {tag.number for tag in tags if tag.attachment is self._attachment and tag.attachment.holds(tag.number)}

    def _buried(self, delivery: Delivery, reason: str) -> Message:
        properties = read_properties(_tag(delivery).header)
        content_type, message_id, kind = (
            None if text is None else short_enough(text)
            for text in (properties.content_type, properties.message_id, properties.type)
        )
        copied = Basic.Properties(
            content_type=content_type,
            delivery_mode=PERSISTENT,
            priority=properties.priority,
            message_id=message_id,
            message_type=kind,
            user_id=self._publisher.user,
            headers=dict(dead_letter_headers(self._queue, reason)),
        )
        return Message(Address(DEAD, ""), delivery.body, copied)

    def _condemn(self, reason: str) -> None:
        if self._generation is not None:
            self._generation.condemn(reason)


async def _nothing(_message: object) -> None:
    """The library is handed no delivery: each is taken off the wire."""


def _texts(headers: FieldTable) -> dict[str, str]:
    return {name: str(value) for name, value in headers.items()}


def _tag(delivery: Delivery) -> Tag:
    return cast("Tag", delivery.tag)
