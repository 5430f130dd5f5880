"""Publish to RabbitMQ so that a return without an error means: stored in a queue."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

from aio_pika.abc import AbstractChannel
from aiormq.channel import Channel as UnderlayChannel
from aiormq.exceptions import AMQPChannelError, ChannelNotFoundEntity, PublishError
from pamqp.commands import Basic

from common.broker.base import Address, BrokerUnavailable, Outgoing, Unroutable
from common.broker.rabbitmq_connection import Generation, Link, within
from common.safeguards import Safeguard, is_on

TRANSIENT, PERSISTENT = 1, 2
CONTENT_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Message:
    """A message in RabbitMQ's terms."""

    address: Address
    body: bytes
    properties: Basic.Properties


@dataclass(slots=True)
class PublishingChannel:
    """The channel with confirms, and the exchanges that were seen to exist."""

    channel: AbstractChannel
    underlay: UnderlayChannel
    exchanges: set[str] = field(default_factory=set)


async def open_publishing_channel(generation: Generation[PublishingChannel]) -> PublishingChannel:
    """Open the channel that a generation publishes on."""
    channel = await generation.open_channel(confirms=True)
    generation.watch(channel)
    # Only the concrete class can publish without waiting for the socket after each frame.
    return PublishingChannel(channel, cast("UnderlayChannel", await channel.get_underlay_channel()))


def make_message(outgoing: Outgoing) -> Message:
    """Return the message to send."""
    return Message(
        outgoing.address,
        outgoing.body,
        Basic.Properties(
            content_type=CONTENT_TYPE,
            delivery_mode=PERSISTENT if is_on(Safeguard.PERSISTENCE) else TRANSIENT,
            priority=outgoing.priority,
            message_id=str(outgoing.message_id),
            message_type=outgoing.type,
            expiration=None if outgoing.expires_after is None else _milliseconds(outgoing.expires_after),
        ),
    )


class Publisher:
    """Sends messages and waits for their confirms, within a deadline."""

    def __init__(self, link: Link[PublishingChannel], *, user: str | None, deadline: timedelta) -> None:
        self._link = link
        self._user = user
        self._deadline = deadline

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store the messages; see `base.Broker.publish`."""
        generation: Generation[PublishingChannel] | None = None
        try:
            async with asyncio.timeout(self._deadline.total_seconds()):
                generation = await self._link.generation()
                publishing = generation.prepared
                await self._check_exchanges(generation, messages)
                # All frames first, then all confirms: the broker may store them together.
                outcomes = await asyncio.gather(
                    *(self._send(publishing.underlay, message) for message in messages), return_exceptions=True
                )
        except TimeoutError:
            if generation is not None:
                # What waits in this connection must not be sent after the caller was told that it is unknown, and a
                # connection that is dead without knowing it is replaced this way.
                generation.condemn("a publish was not confirmed in time")
            raise BrokerUnavailable(
                f"RabbitMQ did not confirm a publish within {self._deadline.total_seconds():g} s."
            ) from None
        _raise_first(outcomes, messages)

    async def _check_exchanges(self, generation: Generation[PublishingChannel], messages: Sequence[Message]) -> None:
        # A publish to an exchange that does not exist closes the channel, and everything in flight on it fails.
        publishing = generation.prepared
        for name in {message.address.exchange.name for message in messages} - publishing.exchanges:
            async with generation.side_channel() as channel:
                try:
                    await within(self._deadline, channel.get_exchange(name, ensure=True))
                except ChannelNotFoundEntity:
                    raise Unroutable(f"RabbitMQ has no exchange {name!r}.") from None
                except AMQPChannelError as refusal:
                    raise BrokerUnavailable(f"RabbitMQ refuses the exchange {name!r}: {refusal}") from refusal
            publishing.exchanges.add(name)

    async def _send(self, channel: UnderlayChannel, message: Message) -> None:
        # RabbitMQ refuses a user_id that is not that of the connection, so readers can rely on it.
        message.properties.user_id = self._user
        await channel.basic_publish(
            message.body,
            exchange=message.address.exchange.name,
            routing_key=message.address.routing_key,
            properties=message.properties,
            mandatory=True,
            wait=False,
        )


def _raise_first(outcomes: Sequence[BaseException | None], messages: Sequence[Message]) -> None:
    failed = [(outcome, message) for outcome, message in zip(outcomes, messages, strict=True) if outcome is not None]
    for outcome, _ in failed:
        if not isinstance(outcome, PublishError):
            raise BrokerUnavailable(f"RabbitMQ did not confirm a publish: {outcome!r}") from outcome
    for outcome, message in failed:
        exchange, key = message.address
        raise Unroutable(f"No queue takes {key!r} of the exchange {exchange.name!r}.") from outcome


def _milliseconds(duration: timedelta) -> str:
    return str(max(0, round(duration / timedelta(milliseconds=1))))
