"""Inner steps of attempts, as they are reported and as they are read."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from common.messages import StepReport, StepStatus


@dataclass(frozen=True, slots=True)
class NewStep:
    """A report of an inner step; it counts only if the attempt is this agent's."""

    task_id: UUID
    attempt: int
    agent_id: UUID
    report: StepReport


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A report that changed what is known of a step just now, with the ids that an event about it carries."""

    task_id: UUID
    trace_id: UUID
    request_id: UUID
    agent_id: UUID
    attempt: int
    position: int
    name: str
    status: StepStatus
    message: str


@dataclass(frozen=True, slots=True)
class TaskStep:
    """An inner step of an attempt, and where it stands; times are by the host's clock."""

    task_id: UUID
    attempt: int
    position: int
    name: str
    status: StepStatus
    started_at: datetime | None
    finished_at: datetime | None
    message: str

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "TaskStep":
        """Make a step of a row of `task_step`."""
        return cls(**{**row, "status": StepStatus(row["status"])})
