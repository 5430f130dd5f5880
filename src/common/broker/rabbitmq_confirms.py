"""The publishing channel: messages go out in one write, and their confirms are awaited together."""

import asyncio
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from pamqp.commands import Basic

from common.broker.base import Address, BrokerUnavailable
from common.broker.rabbitmq_frames import (
    ACK,
    METHOD_INDEX,
    NACK,
    RETURN,
    content_frames,
    publish_method,
    read_properties,
)
from common.broker.rabbitmq_wire import Wire


class Message(NamedTuple):
    """A message in RabbitMQ's terms."""

    address: Address
    body: bytes
    properties: Basic.Properties


class Batch:
    """Messages that were sent together. `done` ends with the last confirm, or with `BrokerUnavailable`.

    `returned` are those that no queue has taken, `refused` those that the broker has refused to store.
    """

    __slots__ = ("done", "missing", "refused", "returned")

    def __init__(self, missing: int, done: asyncio.Future[None]) -> None:
        self.done = done
        self.missing = missing
        self.returned: list[Message] = []
        self.refused: list[Message] = []


class ConfirmingChannel:
    """Publishes on a channel that is in confirm mode, and on which nobody else publishes; taps it, see `Tap`."""

    def __init__(self, wire: Wire, channel: int, *, largest_frame: int) -> None:
        self._wire = wire
        self._channel = channel
        self._largest_frame = largest_frame
        self._last = 0
        # In the order of the numbers, which the broker counts as we do.
        self._awaited: dict[int, tuple[Batch, Message]] = {}
        self._failed: str | None = None

    def send(self, messages: Sequence[Message]) -> Batch:
        """Send the messages. Raises `BrokerUnavailable`, and `ValueError` for an address that none can have."""
        if self._failed is not None:
            raise BrokerUnavailable(self._failed)
        frames: list[bytes] = []
        for message in messages:
            frames.append(publish_method(self._channel, message.address))
            frames += content_frames(self._channel, message.properties, message.body, largest=self._largest_frame)
        self._wire.write(b"".join(frames))
        batch = Batch(len(messages), asyncio.get_running_loop().create_future())
        for message in messages:
            self._last += 1
            self._awaited[self._last] = batch, message
        return batch

    def fail(self, reason: str) -> None:
        """Nothing is confirmed here any more: what is awaited has an unknown outcome."""
        self._failed = reason
        for batch, _ in self._awaited.values():
            if not batch.done.done():
                batch.done.set_exception(BrokerUnavailable(reason))
                # Whoever waited may have given up.
                batch.done.exception()
        self._awaited.clear()

    def takes(self, method: int) -> bool:
        return method in (ACK, NACK, RETURN)

    def method(self, method: int, payload: bytes) -> bool:
        if method == RETURN:
            return True
        confirmed = Basic.Ack() if method == ACK else Basic.Nack()
        confirmed.unmarshal(payload[METHOD_INDEX.size :])
        self._settle(confirmed.delivery_tag, multiple=confirmed.multiple, refused=method == NACK)
        return False

    def content(self, header: bytes, body: bytes) -> None:
        """A message comes back that no queue takes; its confirm follows."""
        message_id = read_properties(header).message_id
        for batch, message in self._awaited.values():
            if message.properties.message_id == message_id and not any(message is known for known in batch.returned):
                batch.returned.append(message)
                return

    def _settle(self, last: int, *, multiple: bool, refused: bool) -> None:
        numbers = list(takewhile(lambda number: number <= last, self._awaited)) if multiple else [last]
        for number in numbers:
            self._settle_one(number, refused=refused)

    def _settle_one(self, number: int, *, refused: bool) -> None:
        entry = self._awaited.pop(number, None)
        if entry is None:
            return
        batch, message = entry
        batch.missing -= 1
        if refused:
            batch.refused.append(message)
        if not batch.missing and not batch.done.done():
            batch.done.set_result(None)
