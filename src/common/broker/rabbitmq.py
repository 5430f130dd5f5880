"""The broker on RabbitMQ: publishing and consuming on connections of their own, each under a supervisor.

Blocked publishers (a memory or disk alarm) must not hold up acknowledgements, therefore two connections.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import TypeVar

from aio_pika.abc import AbstractChannel
from aiormq.exceptions import AMQPChannelError, ChannelAccessRefused, ChannelNotFoundEntity

from common.broker.base import BrokerUnavailable, Consumer, NotPermitted, Outgoing, Queue, QueueType
from common.broker.rabbitmq_connection import Generation, Link, within
from common.broker.rabbitmq_consumer import RabbitConsumer
from common.broker.rabbitmq_publisher import Publisher, PublishingChannel, open_publishing_channel
from common.broker.rabbitmq_user import user_of
from common.loop import end
from common.rabbitmq import declare_queues
from common.urls import without_secrets

DEADLINE = timedelta(seconds=10)

Value = TypeVar("Value")


class RabbitBroker:
    """See `base.Broker`."""

    def __init__(self, url: str, *, name: str, queue_type: QueueType, deadline: timedelta) -> None:
        self._queue_type = queue_type
        self._deadline = deadline
        self._declared: dict[str, Queue] = {}
        self._refused: set[str] = set()
        self._publishing = Link(url, name=f"{name} (publishing)", deadline=deadline, prepare=open_publishing_channel)
        self._consuming: Link[None] = Link(
            url, name=f"{name} (consuming)", deadline=deadline, prepare=self._declare_again
        )
        self._publisher = Publisher(self._publishing, user=user_of(url), deadline=deadline)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be connected while inside. Raises `BrokerUnavailable` when the first connection fails."""
        async with AsyncExitStack() as stack:
            for link in (self._publishing, self._consuming):
                stack.push_async_callback(link.close)
                await link.open()
            for link in (self._publishing, self._consuming):
                stack.push_async_callback(end, asyncio.create_task(link.keep(), name="broker_link"))
            yield

    @property
    def generation(self) -> int:
        return self._consuming.opened

    @property
    def is_connected(self) -> bool:
        return self._publishing.is_usable

    async def declare(self, *queues: Queue, keep: bool = True) -> None:
        names = ", ".join(queue.name for queue in queues)
        # Each refusal is an error in RabbitMQ's log, so the same is asked once on each connection.
        if queues and self._refused.issuperset(queue.name for queue in queues):
            raise NotPermitted(f"RabbitMQ does not let this user declare the queues {names}.")
        try:
            await self._ask(lambda channel: declare_queues(channel, queues, queue_type=self._queue_type))
        except ChannelAccessRefused as refusal:
            self._refused.update(queue.name for queue in queues)
            raise NotPermitted(f"RabbitMQ does not let this user declare the queues {names}: {refusal}") from refusal
        except AMQPChannelError as refusal:
            raise BrokerUnavailable(
                f"RabbitMQ refuses the queues {names}: {refusal}. If one exists with other arguments, or another "
                "queue_type, delete it."
            ) from refusal
        if keep:
            self._declared.update({queue.name: queue for queue in queues})

    async def delete(self, queue: str) -> None:
        self._declared.pop(queue, None)
        with suppress(ChannelNotFoundEntity):
            await self._ask(lambda channel: channel.queue_delete(queue))

    async def publish(self, *messages: Outgoing) -> None:
        if messages:
            await self._publisher.publish([self._publisher.message(message) for message in messages])

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumer]:
        consumer = RabbitConsumer(
            self._consuming,
            self._publisher,
            queue,
            prefetch=prefetch,
            has_priorities=lambda: queue in self._declared and self._declared[queue].has_priorities,
            deadline=self._deadline,
        )
        keeping = asyncio.create_task(consumer.keep(), name=f"consume {queue}")
        try:
            yield consumer
        finally:
            await end(keeping)
            await consumer.close()

    async def depth(self, queue: str) -> int:
        async def count(channel: AbstractChannel) -> int:
            declared = await channel.declare_queue(queue, passive=True)
            return declared.declaration_result.message_count or 0

        try:
            return await self._ask(count)
        except ChannelNotFoundEntity:
            return 0

    async def check(self) -> None:
        links: tuple[Link[PublishingChannel] | Link[None], ...] = (self._publishing, self._consuming)
        for link in links:
            await within(self._deadline, _round_trip(link))

    async def reconnect(self) -> None:
        for link in (self._publishing, self._consuming):
            link.drop("asked to reconnect")

    async def _ask(self, question: Callable[[AbstractChannel], Awaitable[Value]]) -> Value:
        """Ask on a channel of its own, because a refusal closes it."""

        async def asking() -> Value:
            generation = await self._consuming.generation()
            async with generation.side_channel() as channel:
                return await question(channel)

        return await within(self._deadline, asking())

    async def _declare_again(self, generation: Generation[None]) -> None:
        self._refused.clear()
        # A broker that came back without its data gets what was declared here; what others own is theirs to bring back.
        if self._declared:
            async with generation.side_channel() as channel:
                await within(
                    self._deadline,
                    declare_queues(channel, tuple(self._declared.values()), queue_type=self._queue_type),
                )


async def _round_trip(link: Link[PublishingChannel] | Link[None]) -> None:
    async with link.current().side_channel():
        pass


@asynccontextmanager
async def open_rabbitmq_broker(
    url: str, *, name: str, queue_type: QueueType = QueueType.CLASSIC, deadline: timedelta = DEADLINE
) -> AsyncIterator[RabbitBroker]:
    """Connect to RabbitMQ, at one of the hosts that the URL names. No call takes much longer than `deadline`.

    Raises `BrokerUnavailable` when it cannot be reached.
    """
    broker = RabbitBroker(url, name=name, queue_type=queue_type, deadline=deadline)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(broker.running())
        except BrokerUnavailable as failure:
            raise BrokerUnavailable(
                f"Cannot use RabbitMQ at {without_secrets(url)} as the broker. {failure}"
            ) from failure
        yield broker
