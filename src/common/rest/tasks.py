"""Dispatching work, and tasks as callers see them."""

from datetime import datetime
from typing import Any, ClassVar, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from common.errors import ErrorCode
from common.json_rules import Line, WholeNumber
from common.labels import TaskLabels
from common.lifecycle import Status
from common.messages import Stream
from common.policy.model import Effect
from common.rest.base import Answer, Request
from common.rest.errors import ErrorResponse
from common.rest.fan_outs import MOST_AGENTS, Batch, FanOutTask, On, SkippedAgent
from common.rest.work import (
    ConcurrencyKey,
    ConcurrencyLimit,
    ExpiresAfterSeconds,
    Hints,
    Idempotent,
    MaxAttempts,
    OrderingKey,
    Priority,
    WorkHints,
    WorkParameters,
    WorkTypeName,
)

TASK_ID = "7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11"

LONGEST_NAME = 200
MOST_AT_ONCE = 1000


class DispatchRequest(Request):
    """Work to be done."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "task_id": TASK_ID,
                    "work_type": "shell_script",
                    "parameters": {"argv": ["uname", "-a"]},
                    "priority": 4,
                }
            ]
        },
    )

    task_id: UUID = Field(description="Chosen by the caller; the same id with the same content is the same task.")
    work_type: WorkTypeName
    parameters: WorkParameters = Field(default_factory=dict)
    priority: Priority = 3
    hints: WorkHints = Field(default_factory=Hints)
    request_id: UUID | None = Field(
        default=None, description="Idempotency key: sent again with the same content, it gets the same answer."
    )
    trace_id: UUID | None = Field(
        default=None, description="Correlates everything that belongs together; else the request's X-Trace-Id."
    )
    idempotent: Idempotent = False
    max_attempts: MaxAttempts = None
    ordering_key: OrderingKey = None
    concurrency_key: ConcurrencyKey = None
    concurrency_limit: ConcurrencyLimit = None
    approval_id: UUID | None = Field(
        default=None,
        description="An approval that the same person or service asked for beforehand, for exactly this work on "
        "exactly these terms; it counts once (else 409/3004).",
    )
    expires_after_seconds: ExpiresAfterSeconds = None
    name: Line = Field(
        default="", max_length=LONGEST_NAME, description="What people call it, in lists.", examples=["nightly backup"]
    )
    labels: TaskLabels = Field(
        default_factory=dict,
        description="Texts by their names, by which tasks are found again.",
        examples=[{"env": "prod", "team": "web"}],
    )
    on: On | None = Field(
        default=None, description="Run it on each of several agents; `task_id` is then the id of the fan-out."
    )
    batch: Batch | None = Field(
        default=None,
        description="With `on`: how many agents work at a time, as a number or a percentage; all without it.",
        examples=["10%"],
    )
    stop_after_failures: WholeNumber | None = Field(
        default=None, ge=1, le=MOST_AGENTS, description="With `on`: after so many failed tasks none of the rest begins."
    )

    @model_validator(mode="after")
    def _paces_a_fan_out(self) -> Self:
        for name in ("batch", "stop_after_failures"):
            if self.on is None and getattr(self, name) is not None:
                raise ValueError(f"'{name}' is allowed only with 'on', which says on which agents")
        return self


class DispatchResponse(Answer):
    """The ids of a dispatched task. A repeated dispatch gets the answer of the first."""

    trace_id: UUID = Field(description="Trace ID for correlation")
    request_id: UUID = Field(description="Request ID for idempotency")
    task_id: UUID = Field(description="Task ID", examples=[TASK_ID])
    status: Status = Field(
        default=Status.PENDING, description="Initial status: pending, or awaiting_approval until people have said yes"
    )
    approval_id: UUID | None = Field(default=None, description="The approval that lets it run, if it needs one.")
    tasks: list[FanOutTask] | None = Field(default=None, description="With `on`: the task of each agent.")
    skipped: list[SkippedAgent] | None = Field(
        default=None, description="With `on`: agents that it means and that get no task."
    )


class BatchRequest(Request):
    """Up to 1,000 dispatches, each answered on its own."""

    tasks: list[dict[str, Any]] = Field(
        min_length=1,
        max_length=MOST_AT_ONCE,
        description="Items as in POST /api/v1/dispatch; a bad one does not keep the others from being dispatched.",
        examples=[[{"task_id": TASK_ID, "work_type": "echo", "parameters": {"message": "hello"}}]],
    )


class BatchResult(Answer):
    """The answer to one item of a batch: either `task` or `error`."""

    index: int = Field(description="The position of the item in the request.")
    status_code: int = Field(description="The HTTP status that the item would have had alone.", examples=[200])
    task: DispatchResponse | None = Field(default=None, description="The dispatched task.")
    error: ErrorResponse | None = Field(default=None, description="Why the item was refused.")


class BatchResponse(Answer):
    """The answers to a batch."""

    results: list[BatchResult] = Field(description="One for each item, in the order of the request.")


class TaskSummary(Answer):
    """A task without its output."""

    task_id: UUID = Field(description="The id that the caller chose.")
    request_id: UUID = Field(description="The idempotency key of the dispatch.")
    trace_id: UUID = Field(description="Correlates everything that belongs together.")
    work_type: str = Field(description="What kind of work it is.")
    agent_type: str = Field(description="The type of agent that it is for.")
    priority: int = Field(description="5 critical, 4 high, 3 normal, 2 low, 1 background.")
    status: Status = Field(description="awaiting_approval, pending, running, completed, failed or cancelled")
    progress: str = Field(default="", description="The last report of the current or last attempt.")
    percent: int | None = Field(default=None, description="How much is done, of 100, when that report says it.")
    error_message: str | None = Field(default=None, description="Why it failed or was cancelled.")
    error_code: int | None = Field(default=None, description="5001 timeout, 5002 agent lost or stopped, …")
    exit_code: int | None = Field(default=None, description="The exit status of its program, if it ran one.")
    duration_ms: int | None = Field(default=None, description="How long the last attempt ran.")
    agent_id: UUID | None = Field(default=None, description="The agent of the current or last attempt.")
    agent_name: str | None = Field(default=None, description="The name of that agent.")
    name: str = Field(default="", description="What the caller called it.")
    labels: dict[str, str] = Field(default_factory=dict, description="The labels that the caller gave it.")
    requested_by: str | None = Field(default=None, description="The identity that dispatched it.")
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="What it is to do, with what looks like a secret hidden; long texts are shortened in lists.",
    )
    result: Any = Field(default=None, description="What its executor returned, when it has ended.")
    attempt: int = Field(description="The number of the current or last attempt; 0 before the first.")
    max_attempts: int = Field(description="How often it may start.")
    ordering_key: str | None = Field(default=None, description="Tasks with this key run one after another.")
    concurrency_key: str | None = Field(default=None, description="Only so many tasks with this key run at a time.")
    created_at: datetime = Field(description="When it was dispatched.")
    updated_at: datetime = Field(description="When it last changed.")
    started_at: datetime | None = Field(default=None, description="When the current or last attempt began.")
    finished_at: datetime | None = Field(default=None, description="When it ended.")
    expires_at: datetime | None = Field(default=None, description="It is cancelled if it still waits then.")
    rerun_of: UUID | None = Field(default=None, description="The task that this one repeats.")
    effect: Effect = Field(description="read, or write when it may change something.")
    policy_rule: str = Field(description="The rule of the policy by which it may run.")
    policy_version: str = Field(description="The policy that was asked.")
    approval_id: UUID | None = Field(default=None, description="The approval that lets it run, if it needs one.")

    @property
    def is_final(self) -> bool:
        """True when the task has ended."""
        return self.status.is_final

    @property
    def timed_out(self) -> bool:
        """True when the task failed because it ran longer than it was allowed to."""
        return self.status is Status.FAILED and self.error_code == ErrorCode.TIMEOUT


class TaskStatus(TaskSummary):
    """A task with the end of its output."""

    output: str = Field(default="", description="The end of the output of both streams, at most 16 KiB.")


class TaskPage(Answer):
    """A page of tasks, newest first."""

    items: list[TaskSummary] = Field(description="The tasks of this page.")
    next_cursor: str | None = Field(default=None, description="Pass it as `cursor` to get the next page.")


class OutputPage(Answer):
    """A part of what a task wrote to one stream. Offsets count bytes of UTF-8."""

    task_id: UUID = Field(description="The task.")
    attempt: int = Field(description="The attempt that wrote it.")
    stream: Stream = Field(description="stdout or stderr")
    offset: int = Field(description="Where the text begins; behind the one asked for if that was inside a character.")
    next_offset: int = Field(description="Ask for this next.")
    text: str = Field(description="The text.")
    complete: bool = Field(description="Nothing will follow `next_offset`.")
    dropped: int = Field(
        default=0, description="How many bytes of the stream came after the limit and were not kept; known at the end."
    )


class CancelResponse(Answer):
    """A task that is cancelled."""

    task_id: UUID = Field(description="The task.")
    status: str = Field(default="cancelled", description="Always `cancelled`.")


class CancelledTrace(Answer):
    """The result of cancelling a trace."""

    trace_id: UUID = Field(description="The trace.")
    cancelled: list[UUID] = Field(description="The tasks that this cancelled.")
    already_ended: int = Field(description="How many had ended before.")


class RerunRequest(Request):
    """The ids of the new task; those that are not given are made up."""

    task_id: UUID | None = Field(default=None, description="The id of the new task.")
    request_id: UUID | None = Field(default=None, description="Its idempotency key.")
    trace_id: UUID | None = Field(default=None, description="Its trace, when that is not the old one's.")
