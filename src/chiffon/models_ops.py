"""The operators' view of queue and executions, as frozen models."""

from datetime import datetime
from typing import Any

from chiffon.models import Answer


class WaitingPool(Answer):
    """The waiting tasks of one queue; `aim` is not empty for work that is for certain agents only."""

    pool: str
    aim: str
    depth: int
    by_priority: dict[int, int]
    published: int
    retries: int
    oldest_seconds: float | None


class LeaseHolder(Answer):
    """The running tasks of one agent."""

    agent_id: str
    name: str
    running: int
    next_lease_ends_at: datetime | None


class QueueSnapshot(Answer):
    """The waiting and the running tasks, at one moment."""

    at: datetime
    pools: list[WaitingPool]
    held_by_keys: int
    leases: list[LeaseHolder]
    dead_letters: dict[str, int]


class Execution(Answer):
    """The outcome of one task."""

    execution_id: str
    command: str
    status: str
    result: Any
    error_message: str | None
    error_code: int | None
    attempts: int
    agent_id: str | None
    duration_ms: int | None
    created_at: datetime
    finished_at: datetime | None


class Executions(Answer):
    """The last outcomes, the newest end first."""

    items: list[Execution]
