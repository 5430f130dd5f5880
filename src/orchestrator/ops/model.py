"""A snapshot of everything that waits and runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Pool:
    """What waits for one pool, or for one aim within it (`aim` is not empty).

    `by_priority` counts what may run now; `retries` wait for their time.
    """

    pool: str
    aim: str
    by_priority: Mapping[int, int]
    retries: int
    oldest_seconds: float | None

    @property
    def depth(self) -> int:
        return sum(self.by_priority.values())


@dataclass(frozen=True, slots=True)
class Holder:
    """How many live leases an agent has, and when the first of them ends."""

    agent_id: UUID
    name: str
    running: int
    next_lease_ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment. `held_by_keys`: tasks that wait for others of their ordering or concurrency key."""

    at: datetime
    pools: Sequence[Pool]
    held_by_keys: int
    leases: Sequence[Holder]
    dead_letters: Mapping[str, int]
