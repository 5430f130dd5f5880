"""What operators see of the whole; the same shape from every backend."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class PoolOut(BaseModel):
    """What waits in one queue."""

    model_config = ConfigDict(from_attributes=True)

    pool: str = Field(description="The type of agents; empty for work that is for certain agents only.")
    aim: str = Field(default="", description="Which agents such work is for, as a key; see its `why`.")
    depth: int = Field(description="How many wait and may run now.")
    by_priority: Mapping[int, int] = Field(description="`depth` by priority.")
    published: int = Field(description="Of these, how many tickets are with the broker.")
    retries: int = Field(description="How many more wait for the time of their next attempt.")
    oldest_seconds: float | None = Field(description="How long the oldest of them has waited.")


class HolderOut(BaseModel):
    """The running tasks of one agent."""

    model_config = ConfigDict(from_attributes=True)

    agent_id: str
    name: str
    running: int
    next_lease_ends_at: datetime | None


class QueueSnapshot(BaseModel):
    """Everything that waits and runs, at one moment."""

    at: datetime
    pools: Sequence[PoolOut]
    held_by_keys: int = Field(description="How many wait for others of their ordering or concurrency key.")
    leases: Sequence[HolderOut]
    dead_letters: Mapping[str, int] = Field(description="How many wait for somebody, by kind.")


class ExecutionOut(BaseModel):
    """The outcome of one task."""

    execution_id: str
    command: str = Field(description="The work type.")
    status: str = Field(description="completed, failed or cancelled")
    result: Any = Field(default=None, description="What it returned, or the end of what it wrote.")
    error_message: str | None = None
    error_code: int | None = None
    attempts: int
    agent_id: str | None = None
    duration_ms: int | None = None
    created_at: datetime
    finished_at: datetime | None


class Executions(BaseModel):
    items: Sequence[ExecutionOut] = Field(description="The last to end come first.")
