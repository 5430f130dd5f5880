"""The broker contract: what every backend guarantees, and what it does not.

Guarantees, proven for every backend by `tests/contract/test_broker.py`:

- **Stored.** When `publish` returns, every message is with the broker, and those that are `persistent` survive whatever
  the backend survives (`memory` nothing, `postgresql` and `amqp` a restart of everything). When it raises, some
  may have been stored all the same: the outcome is unknown, and the caller publishes again.
- **At least once.** A delivery that is not acknowledged comes back: after `requeue`, after the consumer is closed, and
  after its process or connection has died. So a message can arrive twice, and `redelivered` says when it may have.
- **Priority.** Of the messages that wait in a queue that `has_priorities`, the highest is delivered first, the oldest
  first among equals; other queues deliver the oldest first. A message that came back keeps its priority.
- **Bounded.** A consumer never holds more than `prefetch` deliveries that are not settled, so a slow one leaves the
  rest to others.
- **Dead letters keep the reason.** `dead_letter` moves a message, unchanged, to the queue `dead` with the reason and
  the name of the queue that it came from, before it is gone from that queue.
- **The sender is proven or unknown.** `Delivery.sender` is the user as whom the publisher logged in, checked by the
  broker itself. Only RabbitMQ knows users; elsewhere it is None, and whoever reaches the bus is trusted.
- **Reconnecting is the broker's business.** A consumer that waits in `receive` goes on after an outage, also when a
  connection fell silent and nobody closed it, however long or short callers wait for a publish. Settling a
  delivery of a connection that is gone does nothing: the message has been, or will be, delivered again. Whoever sees
  from the outside that a connection is alive and yet deaf can ask for a new one with `reconnect`.

Not guaranteed: exactly-once delivery, and an order between different queues.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol
from uuid import UUID

from common.errors import Unavailable
from common.ids import new_message_id


class BrokerUnavailable(Unavailable):
    """The broker did not answer in time or cannot be reached; whether a message was stored is unknown."""


class Unroutable(BrokerUnavailable):
    """No queue is bound to the address of a message, so it was not stored. Others of the same call may have been."""


class NotPermitted(BrokerUnavailable):
    """The broker does not let this user do that; somebody else has to, or has to give it the right."""


class ConsumerCancelled(BrokerUnavailable):
    """`receive` was called, or was waiting, on a consumer that takes no more deliveries."""


class ExchangeType(StrEnum):
    """How an exchange picks queues by routing key; the words are AMQP's."""

    DIRECT = "direct"
    TOPIC = "topic"
    FANOUT = "fanout"


class QueueType(StrEnum):
    """How RabbitMQ keeps queues: on one node, or copied to several, of which any minority may be lost."""

    CLASSIC = "classic"
    QUORUM = "quorum"


class Exchange(NamedTuple):
    name: str
    type: ExchangeType


class Address(NamedTuple):
    """Where a message is sent: an exchange, which hands it to the queues bound to the routing key."""

    exchange: Exchange
    routing_key: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue and the bindings that fill it.

    `unused_for`: RabbitMQ removes the queue when nobody has consumed from it for that long; other backends keep it.
    """

    name: str
    bindings: tuple[Address, ...]
    has_priorities: bool = False
    unused_for: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish.

    `expires_after`: not delivered once that much time has passed, but silently dropped. One that need not be
    `persistent` may be lost when the backend restarts: whoever misses it asks again.
    """

    address: Address
    body: bytes
    type: str
    priority: int = 3
    message_id: UUID = field(default_factory=new_message_id)
    expires_after: timedelta | None = None
    persistent: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A message that was handed to a consumer and is its until it is settled.

    `headers` holds `reason` and `queue` when it is read from the dead letters. `tag` is the backend's own. `sender` is
    who published it, as the broker has checked, and `routing_key` where to; None where the backend does not say.
    """

    body: bytes
    message_id: str
    priority: int
    redelivered: bool
    headers: Mapping[str, str]
    tag: object
    sender: str | None = None
    routing_key: str | None = None


class Consumer(Protocol):
    """Takes deliveries from one queue."""

    async def receive(self, limit: int = 1) -> Sequence[Delivery]:
        """Wait for at least one delivery and return those that have arrived, at most `limit`, best first."""
        ...

    async def ack(self, *deliveries: Delivery) -> None:
        """The messages are dealt with: forget them."""
        ...

    async def requeue(self, *deliveries: Delivery) -> None:
        """Give the messages back; they are delivered again, to anyone."""
        ...

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Move a message that nobody can deal with to the queue `dead`, with the reason."""
        ...

    async def cancel(self) -> None:
        """Take no more deliveries. Those held can still be settled; those never received go back.

        A `receive` that waits, or comes later, raises `ConsumerCancelled`.
        """
        ...


class Broker(Protocol):
    """A message bus. Safe for use by many tasks of one event loop."""

    @property
    def generation(self) -> int:
        """Another number with every connection that is made: what was published before may be gone."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether a publish may succeed now, as far as is known without asking the broker."""
        ...

    async def declare(self, *queues: Queue, keep: bool = True) -> None:
        """Create exchanges, queues and bindings that do not exist yet.

        With `keep` they are created again when the bus comes back without its data. Raises `NotPermitted` where the
        broker does not let this user create them.
        """
        ...

    async def delete(self, queue: str) -> None:
        """Remove a queue and what is in it; no error when there is none."""
        ...

    async def publish(self, *messages: Outgoing) -> None:
        """Store the messages.

        Raises `Unroutable` when a message has no queue, and `BrokerUnavailable` when the outcome is unknown.
        """
        ...

    def consume(self, queue: str, *, prefetch: int) -> AbstractAsyncContextManager[Consumer]:
        """Open a consumer; closing it gives back every delivery that is not settled. The queue may come later."""
        ...

    async def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue, not counting those that consumers hold; 0 without such a queue."""
        ...

    async def check(self) -> None:
        """Return when the broker answers; raise `BrokerUnavailable` otherwise."""
        ...

    async def reconnect(self) -> None:
        """Throw every connection away, also one that looks well; new ones are made as after any other loss."""
        ...
