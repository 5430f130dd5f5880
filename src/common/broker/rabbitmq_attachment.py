"""What one subscription has delivered, and its settlement; everything here ends with the channel.

Acknowledgements of one turn of the event loop leave together: one frame settles everything up to a number.
"""

import asyncio
from collections.abc import Callable, Collection

from common.broker.base import BrokerUnavailable
from common.broker.rabbitmq_frames import DELIVER, Delivered, ack_frame, read_delivered, requeue_frame
from common.broker.rabbitmq_wire import Wire

OnDelivery = Callable[["Attachment", Delivered, bytes, bytes], None]


class Attachment:
    """Taps the channel of a consumer until `end`; see `Tap`. Delivery numbers mean something only within it."""

    def __init__(self, wire: Wire, channel: int, on_delivery: OnDelivery) -> None:
        self._wire = wire
        self._channel = channel
        self._on_delivery = on_delivery
        self._delivering: Delivered | None = None
        # Everything delivered and not settled, in the order of its numbers.
        self._unsettled: dict[int, None] = {}
        # Of these, what is dealt with and still to be acknowledged to the broker.
        self._acked: set[int] = set()
        wire.tap(channel, self)

    def end(self) -> None:
        """The channel is closed."""
        self._wire.untap(self._channel, self)

    def takes(self, method: int) -> bool:
        return method == DELIVER

    def method(self, method: int, payload: bytes) -> bool:
        self._delivering = read_delivered(payload)
        return True

    def content(self, header: bytes, body: bytes) -> None:
        assert self._delivering is not None
        self._unsettled[self._delivering.number] = None
        self._on_delivery(self, self._delivering, header, body)

    def holds(self, number: int) -> bool:
        """Say whether a delivery still is to be settled."""
        return number in self._unsettled and number not in self._acked

    def ack(self, numbers: Collection[int]) -> None:
        """Acknowledge deliveries that are held, before this turn of the event loop ends."""
        if numbers and not self._acked:
            asyncio.get_running_loop().call_soon(self._flush_late)
        self._acked.update(numbers)

    def requeue(self, numbers: Collection[int]) -> None:
        """Give back deliveries that are held. Raises `BrokerUnavailable` when the connection is gone."""
        self.flush()
        self._settle(numbers, requeue_frame)

    def flush(self) -> None:
        """Send the acknowledgements that wait. Raises `BrokerUnavailable` when the connection is gone."""
        acked, self._acked = self._acked, set()
        self._settle(acked, ack_frame)

    def _flush_late(self) -> None:
        try:
            self.flush()
        except BrokerUnavailable:
            # The channel is gone, and the broker delivers its messages again.
            self._unsettled.clear()

    def _settle(self, numbers: Collection[int], frame: Callable[..., bytes]) -> None:
        if not numbers:
            return
        # A batch that was taken from the front needs only one frame.
        front = 0
        for number in self._unsettled:
            if number not in numbers:
                break
            front = number
        frames = [frame(self._channel, front, multiple=True)] if front else []
        frames += (frame(self._channel, number, multiple=False) for number in sorted(numbers) if number > front)
        for number in numbers:
            del self._unsettled[number]
        self._wire.write(b"".join(frames))
