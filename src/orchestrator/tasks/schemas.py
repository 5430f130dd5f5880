"""What callers send and see of tasks."""

from datetime import datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.json_rules import Number, SafeObject, SafeText, Truth, WholeNumber
from common.lifecycle import Status
from common.policy.model import Effect
from common.work import WORK_TYPE_PATTERN
from orchestrator.http.errors import ErrorResponse
from orchestrator.placement.schemas import Hints
from orchestrator.tasks.dispatch import HIGHEST_LIMIT, LONGEST_KEY, LONGEST_WAIT
from orchestrator.tasks.model import Identity, Task

TASK_ID = "7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11"


Key = Annotated[SafeText, Field(min_length=1, max_length=LONGEST_KEY)]


class DispatchRequest(BaseModel):
    """Work to be done."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid",
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
    work_type: str = Field(
        pattern=WORK_TYPE_PATTERN, description="What kind of work it is.", examples=["shell_script", "echo"]
    )
    parameters: SafeObject = Field(default_factory=dict, description="What the work type needs to know.")
    priority: WholeNumber = Field(
        default=3, ge=1, le=5, description="5 critical, 4 high, 3 normal, 2 low, 1 background."
    )
    hints: Hints = Field(default_factory=Hints, description="Where the work should go.")
    request_id: UUID | None = Field(
        default=None, description="Idempotency key: sent again with the same content, it gets the same answer."
    )
    trace_id: UUID | None = Field(
        default=None, description="Correlates everything that belongs together; else the request's X-Trace-Id."
    )
    idempotent: Truth = Field(default=False, description="The work does no harm when it is started more than once.")
    max_attempts: WholeNumber | None = Field(
        default=None,
        ge=1,
        le=20,
        description="How often it may start: by default once, or 3 times if idempotent. More than 1 holds also for "
        "work that is not marked idempotent.",
    )
    ordering_key: Key | None = Field(
        default=None,
        description="Tasks with the same key run one after another, in the order of their dispatch: the next starts "
        "when the one before has ended, with all its retries, whatever became of it.",
        examples=["deploy/web-1"],
    )
    concurrency_key: Key | None = Field(
        default=None,
        description="Of the tasks with the same key at most `concurrency_limit` run at a time, the higher priority "
        "first, the older first among equals.",
        examples=["registry-pulls"],
    )
    concurrency_limit: WholeNumber | None = Field(
        default=None,
        ge=1,
        le=HIGHEST_LIMIT,
        description="How many tasks of `concurrency_key` may run at a time; required with it and only allowed with it. "
        "The limit of the newest dispatch holds for all that wait.",
        examples=[4],
    )
    approval_id: UUID | None = Field(
        default=None,
        description="An approval that was asked for beforehand, for exactly this work; it counts once (else 409/3004).",
    )
    expires_after_seconds: Number | None = Field(
        default=None,
        gt=0,
        le=LONGEST_WAIT.total_seconds(),
        allow_inf_nan=False,
        description="The limit on waiting: a task that waits this long after its dispatch is cancelled (error 5001). "
        "It says nothing about how long a task may run.",
        examples=[3600],
    )


class DispatchResponse(BaseModel):
    """The ids under which the work is known. A repeated dispatch gets the answer of the first."""

    trace_id: UUID = Field(description="Trace ID for correlation")
    request_id: UUID = Field(description="Request ID for idempotency")
    task_id: UUID = Field(description="Task ID", examples=[TASK_ID])
    status: Status = Field(
        default=Status.PENDING, description="Initial status: pending, or awaiting_approval until people have said yes"
    )
    approval_id: UUID | None = Field(default=None, description="The approval that lets it run, if it needs one.")

    @classmethod
    def of(cls, known: Identity) -> "DispatchResponse":
        return cls(
            trace_id=known.trace_id,
            request_id=known.request_id,
            task_id=known.task_id,
            status=known.status,
            approval_id=known.approval_id,
        )


class BatchRequest(BaseModel):
    """Up to 1,000 dispatches, each answered on its own."""

    model_config = ConfigDict(extra="forbid")

    tasks: list[dict[str, Any]] = Field(
        min_length=1,
        max_length=1000,
        description="Items as in POST /api/v1/dispatch; a bad one does not keep the others from being dispatched.",
        examples=[[{"task_id": TASK_ID, "work_type": "echo", "parameters": {"message": "hello"}}]],
    )


class BatchItem(BaseModel):
    index: int = Field(description="The position of the item in the request.")
    status_code: int = Field(description="The HTTP status that the item would have had alone.", examples=[200])
    task: DispatchResponse | None = None
    error: ErrorResponse | None = None


class BatchResponse(BaseModel):
    results: list[BatchItem]


class TaskSummary(BaseModel):
    """Where a task stands."""

    model_config = ConfigDict(from_attributes=True)

    task_id: UUID
    request_id: UUID
    trace_id: UUID
    work_type: str
    agent_type: str
    priority: int
    status: Status = Field(description="awaiting_approval, pending, running, completed, failed or cancelled")
    progress: str = Field(default="", description="The last report of the current or last attempt.")
    percent: int | None = Field(default=None, description="How much is done, of 100, when that report says it.")
    error_message: str | None = None
    error_code: int | None = Field(default=None, description="5001 timeout, 5002 agent lost or stopped, …")
    exit_code: int | None = None
    duration_ms: int | None = None
    agent_id: UUID | None = Field(default=None, description="Who runs it, or ran it last.")
    attempt: int = Field(description="The number of the current or last attempt; 0 before the first.")
    max_attempts: int
    ordering_key: str | None = None
    concurrency_key: str | None = None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = Field(default=None, description="When the current or last attempt began.")
    finished_at: datetime | None = None
    expires_at: datetime | None = Field(default=None, description="It is cancelled if it still waits then.")
    rerun_of: UUID | None = Field(default=None, description="The task that this one repeats.")
    effect: Effect = Field(description="read, or write when it may change something.")
    policy_rule: str = Field(description="The rule of the policy by which it may run.")
    policy_version: str = Field(description="The policy that was asked.")
    approval_id: UUID | None = Field(default=None, description="The approval that lets it run, if it needs one.")


class TaskStatus(TaskSummary):
    """Where a task stands, with the end of what it wrote."""

    output: str = Field(default="", description="The end of the output of both streams, at most 16 KiB.")

    @classmethod
    def of(cls, task: Task, output: str) -> "TaskStatus":
        return cls(**{**TaskSummary.model_validate(task).model_dump(), "output": output})


class TaskPage(BaseModel):
    items: list[TaskSummary]
    next_cursor: str | None = Field(default=None, description="Pass it as `cursor` to get the next page.")


class CancelResponse(BaseModel):
    task_id: UUID
    status: str = Field(default="cancelled")


class CancelledTrace(BaseModel):
    """What became of a trace."""

    model_config = ConfigDict(from_attributes=True)

    trace_id: UUID
    cancelled: list[UUID] = Field(description="The tasks that this cancelled.")
    already_ended: int = Field(description="How many had ended before.")


class RerunRequest(BaseModel):
    """Under which ids the new task is to be known; they are made up where none is given."""

    model_config = ConfigDict(extra="forbid")

    task_id: UUID | None = Field(default=None, description="The id of the new task.")
    request_id: UUID | None = Field(default=None, description="Its idempotency key.")
    trace_id: UUID | None = Field(default=None, description="Its trace, when that is not the old one's.")
