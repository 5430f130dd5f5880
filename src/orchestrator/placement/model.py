"""Who may take a task, and who is there to take it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from orchestrator.outbox.offers import ANY, Offer

RECIPIENT_PREFIX = "aim:"
# Before the name of a pool: tickets of its tasks that an agent handed back, which are placed so that others go first.
# No key of an aim begins like that.
RETURNED_PREFIX = "aim:~"


@dataclass(frozen=True, slots=True)
class Aim:
    """Whom a task aims at, within its pool: one agent, or those that have all of `requires`.

    `prefers` breaks ties. `key` is the same for the same aim, and empty for none.
    """

    key: str
    agent_type: str
    agent_id: UUID | None
    requires: Mapping[str, Any]
    prefers: Mapping[str, Any]

    @property
    def recipient(self) -> str:
        """The queue of the outbox in which its tickets wait."""
        return recipient_of(self.key)


@dataclass(frozen=True, slots=True)
class Host:
    """An agent that may have work now. `free`: how many more tickets it may get, and `offer` of which work."""

    agent_id: UUID
    agent_type: str
    labels: Mapping[str, Any]
    free: int
    offer: Offer = ANY


@dataclass(frozen=True, slots=True)
class Line:
    """The tickets of one work type in one queue of the outbox: that of an aim, or one of a pool."""

    recipient: str
    work_type: str

    @property
    def pool(self) -> str:
        """The pool; empty for an aim."""
        return pool_of(self.recipient)

    @property
    def aim(self) -> str:
        """The key of the aim; empty for a pool."""
        return "" if self.pool else self.recipient.removeprefix(RECIPIENT_PREFIX)


def pool_of(recipient: str) -> str:
    """Return the pool for which the tickets of a queue of the outbox are; empty when they are for an aim."""
    if recipient.startswith(RETURNED_PREFIX):
        return recipient.removeprefix(RETURNED_PREFIX)
    return "" if recipient.startswith(RECIPIENT_PREFIX) else recipient


def recipient_of(key: str) -> str:
    return RECIPIENT_PREFIX + key
