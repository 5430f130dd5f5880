"""An event as it is written and as it is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, Self
from uuid import UUID

import asyncpg


class Kind(StrEnum):
    """What can have happened."""

    TASK_DISPATCHED = "task.dispatched"
    TASK_CLAIMED = "task.claimed"
    TASK_PROGRESS = "task.progress"
    TASK_OUTPUT = "task.output"
    TASK_STEP = "task.step"
    TASK_COMPLETED = "task.completed"
    TASK_FAILED = "task.failed"
    TASK_CANCELLED = "task.cancelled"
    TASK_REQUEUED = "task.requeued"
    TASK_STOPPED = "task.stopped"
    TASK_RESULT_REFUSED = "task.result_refused"
    AGENT_REGISTERED = "agent.registered"
    AGENT_STATUS = "agent.status"
    AGENT_PAUSED = "agent.paused"
    AGENT_DRAINING = "agent.draining"
    AGENT_RESUMED = "agent.resumed"
    AGENT_FORGOTTEN = "agent.forgotten"
    AGENT_TRIPPED = "agent.tripped"
    AGENT_CLOCK = "agent.clock"
    AGENT_DUPLICATE = "agent.duplicate"
    AGENT_ENROLLED = "agent.enrolled"
    IDENTITY_CREATED = "identity.created"
    IDENTITY_DISABLED = "identity.disabled"
    TOKEN_CREATED = "token.created"  # noqa: S105 - the name of an event
    TOKEN_CLAIMED = "token.claimed"  # noqa: S105 - the name of an event
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 - the name of an event
    ORCHESTRATOR_STARTED = "orchestrator.started"
    KEYS_CHANGED = "keys.changed"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_VOTED = "approval.voted"
    APPROVAL_COMMENTED = "approval.commented"
    APPROVAL_APPROVED = "approval.approved"
    APPROVAL_REJECTED = "approval.rejected"
    APPROVAL_EXPIRED = "approval.expired"
    APPROVAL_CANCELLED = "approval.cancelled"
    DEAD_LETTER_NOTED = "dead_letter.noted"
    DEAD_LETTER_REPLAYED = "dead_letter.replayed"
    DEAD_LETTER_DISCARDED = "dead_letter.discarded"
    RUN_STARTED = "run.started"
    RUN_STATUS = "run.status"
    RUN_STEP = "run.step"
    RUN_RETRIED = "run.retried"
    RUN_CANCELLED = "run.cancelled"
    RUN_ABANDONED = "run.abandoned"
    ARTIFACT_STORED = "artifact.stored"
    ARTIFACT_MISSING = "artifact.missing"
    ARTIFACT_UPLOADED = "artifact.uploaded"
    ARTIFACT_REMOVED = "artifact.removed"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Something that happened, not yet numbered. `actor` is who did it: a caller, an agent's id, or a loop."""

    kind: Kind
    actor: str
    data: Mapping[str, Any] = field(default_factory=dict)
    task_id: UUID | None = None
    trace_id: UUID | None = None
    request_id: UUID | None = None
    agent_id: UUID | None = None
    attempt: int | None = None

    @classmethod
    def by_agent(
        cls, kind: Kind, about: "OfTask", agent_id: UUID | None, attempt: int, data: Mapping[str, Any]
    ) -> Self:
        """Return the event of what an agent did with an attempt of a task."""
        return cls(
            kind,
            actor=str(agent_id),
            task_id=about.task_id,
            trace_id=about.trace_id,
            request_id=about.request_id,
            agent_id=agent_id,
            attempt=attempt,
            data=data,
        )


class OfTask(Protocol):
    """The ids of a task that its events carry."""

    @property
    def task_id(self) -> UUID: ...

    @property
    def trace_id(self) -> UUID: ...

    @property
    def request_id(self) -> UUID: ...


@dataclass(frozen=True, slots=True)
class Event:
    """A numbered event. Numbers have no gaps and rise in the order in which the changes became visible."""

    seq: int
    at: datetime
    kind: str
    task_id: UUID | None
    trace_id: UUID | None
    request_id: UUID | None
    agent_id: UUID | None
    attempt: int | None
    actor: str
    data: Mapping[str, Any]

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Event":
        """Make an event of a row of `event`; a column `text` is the output that the event tells of."""
        data = row["data"]
        if row["text"] is not None:
            data = {**data, "text": row["text"]}
        return cls(
            row["seq"],
            row["at"],
            row["kind"],
            row["task_id"],
            row["trace_id"],
            row["request_id"],
            row["agent_id"],
            row["attempt"],
            row["actor"],
            data,
        )
