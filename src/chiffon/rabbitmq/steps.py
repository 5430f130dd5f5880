"""The steps of setting RabbitMQ up: each says what has to be so, not how it is made so."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from common.broker.base import Address, Exchange, Queue, QueueType


@dataclass(frozen=True, slots=True)
class VirtualHost:
    name: str


@dataclass(frozen=True, slots=True)
class ExchangeStep:
    vhost: str
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class QueueStep:
    vhost: str
    queue: Queue
    queue_type: QueueType


@dataclass(frozen=True, slots=True)
class Binding:
    vhost: str
    queue: str
    address: Address


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits for the queues whose name matches, which can be changed at any time."""

    vhost: str
    name: str
    pattern: str
    definition: Mapping[str, int | str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class User:
    """A user that exists. The password is that of a new one; one that exists keeps its own unless it `is_replaced`."""

    name: str
    password: str = field(repr=False)
    is_replaced: bool = False


@dataclass(frozen=True, slots=True)
class UserLimits:
    user: str
    max_connections: int
    max_channels: int


@dataclass(frozen=True, slots=True)
class Rights:
    """Patterns of the names of queues and exchanges that a user may create or delete, write to, and read from."""

    vhost: str
    user: str
    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class TopicRights:
    """Patterns of the routing keys that a user may publish with, and bind with, at one topic exchange."""

    vhost: str
    user: str
    exchange: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class NoConnections:
    """Every connection of a user is closed; it may come back with the right password."""

    user: str


@dataclass(frozen=True, slots=True)
class NoUser:
    """The user does not exist, which closes its connections."""

    name: str


@dataclass(frozen=True, slots=True)
class NoQueue:
    vhost: str
    name: str


Step = (
    VirtualHost
    | ExchangeStep
    | QueueStep
    | Binding
    | Policy
    | User
    | UserLimits
    | Rights
    | TopicRights
    | NoConnections
    | NoUser
    | NoQueue
)
