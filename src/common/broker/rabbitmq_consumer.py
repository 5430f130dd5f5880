"""Consume from RabbitMQ: one channel for each consumer, opened anew on every generation."""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, cast

from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel as UnderlayChannel
from aiormq.exceptions import AMQPChannelError, AMQPError
from pamqp.commands import Basic

from common.backoff import full_jitter
from common.broker.base import Address, BrokerUnavailable, ConsumerCancelled, Delivery
from common.broker.dead_letters import dead_letter_headers
from common.broker.rabbitmq_connection import Generation, Link, within
from common.broker.rabbitmq_publisher import PERSISTENT, Message, Publisher
from common.broker.topology import DEAD
from common.loop import Wake

log = logging.getLogger(__name__)

FIRST_PAUSE = timedelta(milliseconds=200)
LONGEST_PAUSE = timedelta(seconds=5)
# Every change rings the bell; this only bounds what a mistake here could cost.
POLL = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Tag:
    """Which delivery of which attachment this was, and what is needed to send it on."""

    attachment: int
    number: int
    properties: Basic.Properties


class _SendSettlement(Protocol):
    def __call__(self, channel: UnderlayChannel, number: int, /, *, multiple: bool) -> Awaitable[None]: ...


class RabbitConsumer:
    """Takes from one queue; see `base.Consumer`. Works while `keep` runs.

    An *attachment* is the time between subscribing on one generation and its loss: delivery numbers mean something
    only within it.
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
        self._attachment = 0
        self._generation: Generation[None] | None = None
        self._channel: AbstractChannel | None = None
        self._underlay: UnderlayChannel | None = None
        self._consumer_tag: str | None = None
        self._waiting: list[tuple[int, int, Delivery]] = []
        # Everything delivered and not settled, in the order of its numbers, also what still waits to be received.
        self._unsettled: dict[int, Delivery] = {}

    async def receive(self, limit: int = 1) -> Sequence[Delivery]:
        async with self._receiving:
            while not self._cancelled:
                if self._waiting:
                    return [heapq.heappop(self._waiting)[2] for _ in range(min(limit, len(self._waiting)))]
                await self._bell.wait(POLL)
            raise ConsumerCancelled(f"The consumer of {self._queue!r} was cancelled.")

    async def ack(self, *deliveries: Delivery) -> None:
        await self._settle(deliveries, _ack)

    async def requeue(self, *deliveries: Delivery) -> None:
        await self._settle(deliveries, _requeue)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        if not self._holds(delivery):
            return
        properties = _tag(delivery).properties
        buried = Message(
            Address(DEAD, ""),
            delivery.body,
            Basic.Properties(
                content_type=properties.content_type,
                delivery_mode=PERSISTENT,
                priority=properties.priority,
                message_id=properties.message_id,
                message_type=properties.message_type,
                headers=dict(dead_letter_headers(self._queue, reason)),
            ),
        )
        # The copy is confirmed before the original goes: a crash in between leaves two, the other way round none.
        await self._publisher.publish([buried])
        await self.ack(delivery)

    async def cancel(self) -> None:
        self._cancelled = True
        self._bell.ring()
        if self._underlay is None or self._consumer_tag is None:
            return
        tag, self._consumer_tag = self._consumer_tag, None
        try:
            await within(self._deadline, self._underlay.basic_cancel(tag))
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
        generation, channel = self._generation, self._channel
        self._detach()
        if generation is not None and channel is not None:
            await generation.close_channel(channel)

    async def _attach(self, generation: Generation[None]) -> bool:
        """Subscribe; False when the broker refuses, which is logged."""
        channel = await generation.open_channel(confirms=False)
        self._generation, self._channel = generation, channel
        self._underlay = underlay = cast("UnderlayChannel", await channel.get_underlay_channel())
        attachment = self._attachment

        async def deliver(message: DeliveredMessage) -> None:
            if attachment == self._attachment:
                self._deliver(message)

        def cancelled_by_broker(_frame: object) -> None:
            if attachment == self._attachment:
                generation.condemn(f"the broker cancelled the consumer of {self._queue!r}")

        underlay.on_consumer_cancel_callbacks.add(cancelled_by_broker)
        try:
            await within(self._deadline, underlay.basic_qos(prefetch_count=self._prefetch))
            subscribed = await within(self._deadline, underlay.basic_consume(self._queue, deliver))
        except AMQPChannelError as refusal:
            log.warning("broker.consume_refused", extra={"queue": self._queue, "reason": str(refusal)})
            self._detach()
            return False
        self._consumer_tag = subscribed.consumer_tag
        generation.watch(channel)
        if self._cancelled:
            await self.cancel()
        return True

    def _detach(self) -> None:
        self._attachment += 1
        self._generation = self._channel = self._underlay = self._consumer_tag = None
        self._waiting.clear()
        self._unsettled.clear()

    def _deliver(self, message: DeliveredMessage) -> None:
        frame, properties = message.delivery, message.header.properties
        assert isinstance(frame, Basic.Deliver)
        assert frame.delivery_tag is not None
        priority = properties.priority or 0
        delivery = Delivery(
            body=message.body,
            message_id=properties.message_id or "",
            priority=priority,
            redelivered=bool(frame.redelivered),
            headers={name: str(value) for name, value in (properties.headers or {}).items()},
            tag=Tag(self._attachment, frame.delivery_tag, properties),
            sender=properties.user_id,
            routing_key=frame.routing_key,
        )
        self._unsettled[frame.delivery_tag] = delivery
        rank = -priority if self._has_priorities() else 0
        heapq.heappush(self._waiting, (rank, frame.delivery_tag, delivery))
        self._bell.ring()

    def _holds(self, delivery: Delivery) -> bool:
        tag = _tag(delivery)
        return tag.attachment == self._attachment and tag.number in self._unsettled

    async def _settle(self, deliveries: Iterable[Delivery], send: _SendSettlement) -> None:
        numbers = {_tag(delivery).number for delivery in deliveries if self._holds(delivery)}
        channel = self._underlay
        if not numbers or channel is None:
            return
        # One frame settles everything up to a number, so a batch that was taken from the front needs only one.
        front = 0
        for number in self._unsettled:
            if number not in numbers:
                break
            front = number
        rest = sorted(number for number in numbers if number > front)
        for number in numbers:
            del self._unsettled[number]
        try:
            async with asyncio.timeout(self._deadline.total_seconds()):
                if front:
                    await send(channel, front, multiple=True)
                for number in rest:
                    await send(channel, number, multiple=False)
        except TimeoutError:
            self._condemn("a settlement could not be sent")
        except (AMQPError, OSError, RuntimeError) as failure:
            # The channel is gone, and the broker delivers its messages again.
            log.info("broker.settle_void", extra={"queue": self._queue, "reason": repr(failure)})

    def _condemn(self, reason: str) -> None:
        if self._generation is not None:
            self._generation.condemn(reason)


async def _ack(channel: UnderlayChannel, number: int, /, *, multiple: bool) -> None:
    await channel.basic_ack(number, multiple=multiple, wait=False)


async def _requeue(channel: UnderlayChannel, number: int, /, *, multiple: bool) -> None:
    await channel.basic_nack(number, multiple=multiple, requeue=True, wait=False)


def _tag(delivery: Delivery) -> Tag:
    return cast("Tag", delivery.tag)
