"""What the orchestrator answers, as frozen models. Fields that this version does not know are ignored."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from common.errors import ErrorCode
from common.lifecycle import Status
from common.messages import AgentStatus, Resources, Stream
from common.policy.model import Effect

FINAL_EVENTS = frozenset({"task.completed", "task.failed", "task.cancelled"})


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Dispatched(Answer):
    """A dispatch that was accepted, now or at an earlier call with the same id."""

    trace_id: UUID
    request_id: UUID
    task_id: UUID
    status: Status
    approval_id: UUID | None = None


class BatchResult(Answer):
    """What became of one task of a batch: either `task` or `error` (a problem document)."""

    index: int
    status_code: int
    task: Dispatched | None = None
    error: dict[str, Any] | None = None


class TaskStatus(Answer):
    """Where a task stands. `output` is the end of what it wrote; it is empty in lists."""

    task_id: UUID
    request_id: UUID
    trace_id: UUID
    work_type: str
    agent_type: str
    priority: int
    status: Status
    progress: str | None = None
    percent: int | None = None
    output: str | None = None
    error_message: str | None = None
    error_code: int | None = None
    exit_code: int | None = None
    duration_ms: int | None = None
    agent_id: UUID | None = None
    attempt: int = 0
    max_attempts: int = 1
    ordering_key: str | None = None
    concurrency_key: str | None = None
    created_at: datetime
    updated_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    rerun_of: UUID | None = None
    effect: Effect | None = None
    policy_rule: str | None = None
    policy_version: str | None = None
    approval_id: UUID | None = None

    @property
    def is_final(self) -> bool:
        return self.status.is_final

    @property
    def timed_out(self) -> bool:
        """True when the task failed because it ran longer than it was allowed to."""
        return self.status is Status.FAILED and self.error_code == ErrorCode.TIMEOUT


class TaskPage(Answer):
    items: list[TaskStatus]
    next_cursor: str | None = None


class OutputPage(Answer):
    """A piece of one stream of an attempt; offsets count UTF-8 bytes. `complete`: nothing follows `next_offset`.

    `dropped`: how much of the stream was not kept, because it was beyond the limit.
    """

    task_id: UUID
    attempt: int
    stream: Stream
    offset: int
    next_offset: int
    text: str
    complete: bool
    dropped: int = 0


class Event(Answer):
    """One row of the ledger: what happened, when, by whom. `seq` rises from event to event."""

    seq: int
    at: datetime
    kind: str
    task_id: UUID | None = None
    trace_id: UUID | None = None
    request_id: UUID | None = None
    agent_id: UUID | None = None
    attempt: int | None = None
    actor: str | None = None
    data: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def ends_a_task(self) -> bool:
        return self.kind in FINAL_EVENTS

    @property
    def progress(self) -> str | None:
        """A report of where the task stands, empty when an attempt begins; None for an event that is about neither."""
        if self.kind == "task.progress":
            return str(self.data["progress"])
        return "" if self.kind == "task.claimed" else None


class EventPage(Answer):
    items: list[Event]
    next_after: int


class AuditEvent(Event):
    """An event as the audit log keeps it; `hash` (hex) covers it and all before it."""

    hash: str | None = None


class AuditPage(Answer):
    items: list[AuditEvent]
    next_after: int | None = None


class WhyAgent(Answer):
    """An agent that has to do with a task's waiting."""

    agent_id: UUID
    hostname: str
    running: int | None = None
    slots: int | None = None
    since: datetime | None = None


class Blocker(Answer):
    """One thing that is in the way of a task. `at` is when it ends or is due, or since when it is so."""

    kind: str
    message: str
    at: datetime | None = None
    by: str | None = None
    note: str | None = None
    key: str | None = None
    limit: int | None = None
    ahead: int | None = None
    task_ids: list[UUID] | None = None
    agents: list[WhyAgent] | None = None


class Why(Answer):
    """Whether a task waits and for what; for one that does not, the only entry says where it stands."""

    task_id: UUID
    status: Status
    waiting: bool
    blockers: list[Blocker]


class Agent(Answer):
    """An agent as it described itself in its last heartbeat."""

    agent_id: UUID
    agent_type: str
    status: AgentStatus
    resources: Resources | None = None
    labels: dict[str, JsonValue] = Field(default_factory=dict)
    last_heartbeat_at: datetime
    hostname: str
    version: str
    work_types: list[str] = Field(default_factory=list)
    slots: int
    current_tasks: list[UUID] = Field(default_factory=list)
    started_at: datetime
    paused_until: datetime | None = None
    paused_by: str | None = None
    pause_note: str | None = None
    draining: bool = False
    drain_note: str | None = None
    tripped_until: datetime | None = None
    routed: bool = True
    trip_reason: str | None = None
    clock_off_seconds: float | None = None


class CancelledTrace(Answer):
    """The tasks of a trace that a cancel ended, and how many had ended before."""

    trace_id: UUID
    cancelled: list[UUID]
    already_ended: int


class DeadLetter(Answer):
    """A message that nobody could deal with, or a task whose attempts all met with a failing agent."""

    id: int
    kind: str
    state: str
    queue: str
    type: str
    reason: str
    message_id: str | None = None
    task_id: UUID | None = None
    body_bytes: int = 0
    body_truncated: bool = False
    at: datetime
    settled_at: datetime | None = None
    settled_by: str | None = None
    replayed_as: UUID | None = None


class DeadLetterDetail(DeadLetter):
    """A dead letter with its body: text, or base64 when `body_encoding` says so, and as JSON where it is that."""

    body: str
    body_encoding: str
    body_json: JsonValue | None = None


class DeadLetterPage(Answer):
    items: list[DeadLetter]
    next_cursor: str | None = None


class Settled(Answer):
    """What became of one dead letter of several: either `dead_letter` or `error` (a problem document)."""

    id: int
    status_code: int
    dead_letter: DeadLetter | None = None
    error: dict[str, Any] | None = None

    @property
    def error_message(self) -> str | None:
        return None if self.error is None else self.error.get("error_message")

    @property
    def error_code(self) -> int | None:
        return None if self.error is None else self.error.get("error_code")
