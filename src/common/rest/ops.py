"""The operators' view of queues and outcomes; the same shape from every backend."""

from datetime import datetime
from typing import Any

from pydantic import Field

from common.rest.base import Answer


class WaitingPool(Answer):
    """The waiting tasks of one queue."""

    pool: str = Field(description="The type of agents; empty for work that is for certain agents only.")
    aim: str = Field(default="", description="Which agents such work is for, as a key; see its `why`.")
    depth: int = Field(description="How many wait and may run now.")
    by_priority: dict[int, int] = Field(description="`depth` by priority.")
    retries: int = Field(description="How many more wait for the time of their next attempt.")
    oldest_seconds: float | None = Field(description="How long the oldest of them has waited.")


class LeaseHolder(Answer):
    """The running tasks of one agent."""

    agent_id: str = Field(description="The agent.")
    name: str = Field(description="What it calls itself.")
    running: int = Field(description="How many tasks it runs.")
    next_lease_ends_at: datetime | None = Field(description="When the first of its leases ends, unless it is renewed.")


class QueueSnapshot(Answer):
    """The waiting and the running tasks, at one moment."""

    at: datetime = Field(description="The moment.")
    pools: list[WaitingPool] = Field(description="The queues in which tasks wait.")
    held_by_keys: int = Field(description="How many wait for others of their ordering or concurrency key.")
    leases: list[LeaseHolder] = Field(description="The agents that run tasks.")
    dead_letters: dict[str, int] = Field(description="How many wait to be settled, by kind.")


class Execution(Answer):
    """The outcome of one task."""

    execution_id: str = Field(description="The task.")
    command: str = Field(description="The work type.")
    status: str = Field(description="completed, failed or cancelled")
    result: Any = Field(default=None, description="What it returned, or the end of what it wrote.")
    error_message: str | None = Field(default=None, description="Why it failed or was cancelled.")
    error_code: int | None = Field(default=None, description="5001 timeout, 5002 agent lost or stopped, …")
    attempts: int = Field(description="How often it was started.")
    agent_id: str | None = Field(default=None, description="The agent of the last attempt.")
    duration_ms: int | None = Field(default=None, description="How long the last attempt ran.")
    created_at: datetime = Field(description="When it was dispatched.")
    finished_at: datetime | None = Field(description="When it ended.")


class Executions(Answer):
    """The last outcomes."""

    items: list[Execution] = Field(description="The last to end come first.")
