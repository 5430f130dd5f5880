"""What one subscription has delivered, and its settlement; everything here ends with the channel.

Acknowledgements of one turn of the event loop leave together: one frame settles everything up to a number.
"""

from collections.abc import Callable, Collection
from functools import partial

from pamqp.commands import Basic
from pamqp.frame import marshal

from common.broker.rabbitmq_frames import DELIVER, Delivered, read_delivered
from common.broker.rabbitmq_wire import Wire

GIVE_BACK = partial(Basic.Nack, requeue=True)
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
        """Acknowledge deliveries that are held. Raises `BrokerUnavailable` when the connection is gone."""
        if numbers and not self._acked:
            self._wire.write_late(self._acknowledgements)
        self._acked.update(numbers)

    def requeue(self, numbers: Collection[int]) -> None:
        """Give back deliveries that are held. Raises `BrokerUnavailable` when the connection is gone."""
        self._wire.write(self._acknowledgements() + self._settled(numbers, GIVE_BACK))

    def _acknowledgements(self) -> bytes:
        acked, self._acked = self._acked, set()
        return self._settled(acked, Basic.Ack)

    def _settled(self, numbers: Collection[int], how: Callable[..., Basic.Ack | Basic.Nack]) -> bytes:
        """Return the frames that acknowledge these, or give them back; a batch from the front needs only one."""
        front = 0
        for number in self._unsettled:
            if number not in numbers:
                break
            front = number
        frames = [how(front, multiple=True)] if front else []
        frames += (how(number) for number in sorted(numbers) if number > front)
        for number in numbers:
            del self._unsettled[number]
        return b"".join(marshal(frame, self._channel) for frame in frames)
