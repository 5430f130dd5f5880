"""Publish to RabbitMQ so that a return without an error means: stored in a queue."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from aiormq.exceptions import AMQPChannelError, ChannelNotFoundEntity
from pamqp.commands import Basic

from common.broker.base import Address, BrokerUnavailable, Outgoing, Unroutable
from common.broker.rabbitmq_confirms import Batch, ConfirmingChannel, Message
from common.broker.rabbitmq_connection import Generation, Link, within

TRANSIENT, PERSISTENT = 1, 2
# A channel whose first publish to a quorum queue meets a dead leader refuses all that follows, also when the queue has
# a new leader (RabbitMQ 3.10). So a connection that goes on refusing is replaced. A queue that is full refuses on each,
# and the connection is replaced ever more rarely.
FIRST_PATIENCE_SECONDS, LONGEST_PATIENCE_SECONDS = 1.0, 60.0
CONTENT_TYPE = "application/json"
UNCONFIRMED = "a publish was not confirmed in time"


@dataclass(slots=True)
class PublishingChannel:
    """The channel with confirms, and the exchanges that were seen to exist."""

    channel: ConfirmingChannel
    exchanges: set[str] = field(default_factory=set)


async def open_publishing_channel(generation: Generation[PublishingChannel]) -> PublishingChannel:
    """Open the channel that a generation publishes on."""
    channel = await generation.open_channel(confirms=True)
    number, largest_frame = await generation.number_of(channel)
    confirming = ConfirmingChannel(generation.wire, number, largest_frame=largest_frame)
    generation.wire.tap(number, confirming)
    generation.when_lost(lambda: confirming.fail("The connection to RabbitMQ was lost before a publish was confirmed."))
    generation.watch(channel)
    return PublishingChannel(confirming)


class Refusals:
    """Says when a connection is to be replaced because what is for an address is refused again and again."""

    def __init__(self) -> None:
        # For each address that refuses: since when, and for how long that is borne.
        self._since: dict[Address, tuple[float, float]] = {}

    def note(self, sent: Iterable[Address], refused: Iterable[Address], *, now: float) -> Address | None:
        """Note what came of a batch; return an address that has refused for so long that a new connection is due."""
        refusing = set(refused)
        for address in set(sent) - refusing:
            self._since.pop(address, None)
        due = None
        for address in refusing:
            since, patience = self._since.setdefault(address, (now, FIRST_PATIENCE_SECONDS))
            if now - since >= patience:
                due = address
                self._since[address] = now, min(2 * patience, LONGEST_PATIENCE_SECONDS)
        return due

    def __bool__(self) -> bool:
        return bool(self._since)


class Publisher:
    """Sends messages and waits for their confirms, within a deadline."""

    def __init__(self, link: Link[PublishingChannel], *, user: str | None, deadline: timedelta) -> None:
        self._link = link
        # RabbitMQ refuses a user_id that is not that of the connection, so readers can rely on it.
        self.user = user
        self._deadline = deadline
        self._refusals = Refusals()

    def message(self, outgoing: Outgoing) -> Message:
        """Return the message to send."""
        properties = Basic.Properties(
            content_type=CONTENT_TYPE,
            delivery_mode=PERSISTENT if outgoing.persistent else TRANSIENT,
            priority=outgoing.priority,
            message_id=str(outgoing.message_id),
            message_type=outgoing.type,
            user_id=self.user,
            expiration=None if outgoing.expires_after is None else _milliseconds(outgoing.expires_after),
        )
        return Message(outgoing.address, outgoing.body, properties)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store the messages; see `base.Broker.publish`."""
        generation: Generation[PublishingChannel] | None = None
        batch: Batch | None = None
        try:
            async with asyncio.timeout(self._deadline.total_seconds()) as deadline:
                generation = await self._link.generation()
                generation.check_not_blocked()
                publishing = generation.prepared
                if missing := {message.address.exchange.name for message in messages} - publishing.exchanges:
                    await self._check_exchanges(generation, missing)
                batch = _send(publishing.channel, messages)
                await batch.done
        except asyncio.CancelledError:
            # A caller that waits for less than the deadline must not keep a dead connection alive: what it sent is
            # looked at when the deadline is over.
            if generation is not None and batch is not None and (at := deadline.when()) is not None:
                asyncio.get_running_loop().call_at(at, _judge, generation, batch)
            raise
        except TimeoutError:
            if generation is not None:
                # It is known why, and the connection is well: what waits in it is stored when the alarm is over.
                generation.check_not_blocked()
                # What waits in this connection must not be sent after the caller was told that it is unknown, and a
                # connection that is dead without knowing it is replaced this way.
                generation.give_up(UNCONFIRMED)
            raise BrokerUnavailable(
                f"RabbitMQ did not confirm a publish within {self._deadline.total_seconds():g} s."
            ) from None
        self._replace_what_keeps_refusing(messages, batch.refused)
        if batch.refused:
            raise BrokerUnavailable(f"RabbitMQ refused to store {len(batch.refused)} of {len(messages)} messages.")
        for message in batch.returned:
            exchange, key = message.address
            raise Unroutable(f"No queue takes {key!r} of the exchange {exchange.name!r}.")

    def _replace_what_keeps_refusing(self, sent: Sequence[Message], refused: Sequence[Message]) -> None:
        if not refused and not self._refusals:
            return
        now = asyncio.get_running_loop().time()
        due = self._refusals.note((one.address for one in sent), (one.address for one in refused), now=now)
        if due is not None:
            self._link.drop(f"RabbitMQ refuses what is for {due.routing_key!r} again and again")

    async def _check_exchanges(self, generation: Generation[PublishingChannel], missing: set[str]) -> None:
        # A publish to an exchange that does not exist closes the channel, and everything in flight on it fails.
        for name in missing:
            async with generation.side_channel() as channel:
                try:
                    await within(self._deadline, channel.get_exchange(name, ensure=True))
                except ChannelNotFoundEntity:
                    raise Unroutable(f"RabbitMQ has no exchange {name!r}.") from None
                except AMQPChannelError as refusal:
                    raise BrokerUnavailable(f"RabbitMQ refuses the exchange {name!r}: {refusal}") from refusal
            generation.prepared.exchanges.add(name)


def _judge(generation: Generation[PublishingChannel], batch: Batch) -> None:
    """Give a connection up that has not confirmed everything, unless it is blocked."""
    if batch.missing and generation.wire.said.alarm is None:
        generation.give_up(UNCONFIRMED)


def _send(channel: ConfirmingChannel, messages: Sequence[Message]) -> Batch:
    try:
        return channel.send(messages)
    except ValueError as failure:
        raise Unroutable(f"No queue can be bound to that address: {failure}") from failure


def _milliseconds(duration: timedelta) -> str:
    return str(max(0, round(duration / timedelta(milliseconds=1))))
