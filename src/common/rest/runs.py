"""Runs: starting a plan, following it, and what people do to it."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from pydantic import ConfigDict, Field

from common.json_rules import Line, SafeObject
from common.messages import StepStatus
from common.plans.model import Plan, StepName
from common.plans.status import RunStatus
from common.rest.approvals import LONGEST_TEXT
from common.rest.base import Answer, OrNewer, Request
from common.rest.work import Key

RUN_ID = "3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11"
LONGEST_RUN_NAME = 128
# How the keys begin that only the orchestrator gives: of repairs of one service one runs at a time.
SERVICE_KEY = "service:"
WHICH_APPROVAL = "Which approval is meant; may be left out when the run waits for one only."


class StepKind(StrEnum):
    """What a step of a run is: one of the plan, or the work that undoes it."""

    STEP = "step"
    UNDO = "undo"


class RunStepStatus(StrEnum):
    """Where a step of a run stands. The last four are final."""

    PENDING = "pending"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class RunRequest(Request):
    """A plan to be run."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "run_id": RUN_ID,
                    "plan": {
                        "name": "greet",
                        "inputs": {"whom": "world"},
                        "steps": [
                            {"name": "hello", "work_type": "echo", "parameters": {"message": "hello ${inputs.whom}"}},
                            {
                                "name": "again",
                                "work_type": "echo",
                                "parameters": {"message": "${steps.hello.output}"},
                            },
                        ],
                    },
                }
            ]
        },
    )

    run_id: UUID = Field(description="Chosen by the caller; the same id with the same content is the same run.")
    plan: Plan = Field(description="The steps, and what each needs.")
    inputs: SafeObject = Field(
        default_factory=dict, description="Values for inputs of the plan; those not given keep their defaults."
    )
    name: Line = Field(
        default="",
        max_length=LONGEST_RUN_NAME,
        description="What people call it, in lists; the name of the plan by default.",
        examples=["nightly rebuild"],
    )
    key: Key | None = Field(
        default=None,
        description="Of the runs with the same key one runs at a time, in the order in which they were started.",
        examples=["release"],
    )
    request_id: UUID | None = Field(
        default=None, description="Idempotency key: sent again with the same content, it gets the same answer."
    )
    trace_id: UUID | None = Field(
        default=None, description="Correlates its tasks with other things; else the request's X-Trace-Id."
    )


class RunRetry(Request):
    """From where a run that has ended is tried again."""

    from_step: StepName | None = Field(
        default=None,
        description="Begin with this step; by default with all that failed. What succeeded before it is kept.",
    )
    reason: Line = Field(default="", max_length=LONGEST_TEXT, description="Why, for those who read it later.")


class RunApprove(Request):
    """A yes to what a run waits for."""

    comment: Line = Field(default="", max_length=LONGEST_TEXT, description="A remark, for people.")
    approval_id: UUID | None = Field(default=None, description=WHICH_APPROVAL)


class RunReject(Request):
    """A no to what a run waits for."""

    reason: Line = Field(min_length=1, max_length=LONGEST_TEXT, description="Why not; the task keeps it.")
    approval_id: UUID | None = Field(default=None, description=WHICH_APPROVAL)


class RunSummary(Answer):
    """A run without its plan and its steps."""

    run_id: UUID = Field(description="The id that the caller chose.", examples=[RUN_ID])
    request_id: UUID = Field(description="The idempotency key of the start.")
    trace_id: UUID = Field(description="Correlates its tasks and events.")
    name: str = Field(description="What people call it.")
    status: OrNewer[RunStatus] = Field(
        description="pending, running, awaiting_approval, succeeded, failed, rolled_back or cancelled"
    )
    key: str | None = Field(default=None, description="Of the runs with this key one runs at a time.")
    service: str | None = Field(default=None, description="The service that it repairs, if it does.")
    requested_by: str = Field(description="Who started it, or retried it last; its tasks are dispatched in this name.")
    created_at: datetime = Field(description="When it was started.")
    queued_at: datetime = Field(description="When it was started, or last tried again.")
    started_at: datetime | None = Field(default=None, description="When its first task began.")
    finished_at: datetime | None = Field(default=None, description="When it ended.")
    error_message: str | None = Field(default=None, description="Why it did not succeed.")
    cancelled_by: str | None = Field(default=None, description="Who cancelled it.")

    @property
    def is_final(self) -> bool:
        """True when the run has ended."""
        return isinstance(self.status, RunStatus) and self.status.is_final


class InnerStep(Answer):
    """A part of one task that its host does by itself."""

    position: int = Field(description="Its place among them, from 0.")
    name: str = Field(description="What it is called.")
    status: OrNewer[StepStatus] = Field(description="in_progress, succeeded, failed or skipped")
    started_at: datetime | None = Field(default=None, description="When it began, by the host's clock.")
    finished_at: datetime | None = Field(default=None, description="When it ended, by the host's clock.")
    message: str = Field(default="", description="What the host says about it.")


class RunStep(Answer):
    """A step of a run: where it stands is where its task stands."""

    step: str = Field(description="Its name in the plan.")
    kind: OrNewer[StepKind] = Field(default=StepKind.STEP, description="step, or undo: what takes it back")
    number: int = Field(description="How often it has begun, in rounds of a loop and in retries; 0 before the first.")
    status: OrNewer[RunStepStatus] = Field(
        description="pending, awaiting_approval, running, succeeded, failed, skipped or cancelled"
    )
    work_type: str = Field(description="What kind of work it is.")
    task_id: UUID | None = Field(default=None, description="Its task, once it has begun.")
    approval_id: UUID | None = Field(default=None, description="The approval that lets it run, if it needs one.")
    agent_id: UUID | None = Field(default=None, description="The agent of the current or last attempt.")
    agent_name: str | None = Field(default=None, description="The name of that agent.")
    attempt: int = Field(default=0, description="The number of the current or last attempt; 0 before the first.")
    progress: str = Field(default="", description="The last report of that attempt.")
    exit_code: int | None = Field(default=None, description="The exit status of its program, if it ran one.")
    error_message: str | None = Field(default=None, description="Why it failed, was cancelled, or could not begin.")
    error_code: int | None = Field(default=None, description="5001 timeout, 5002 agent lost or stopped, …")
    result: Any = Field(default=None, description="What its executor returned.")
    result_left_out: bool = Field(
        default=False,
        description="The results before it are 8 MiB already: what it returned is in `GET /api/v1/status/{task_id}`.",
    )
    started_at: datetime | None = Field(default=None, description="When the current or last attempt began.")
    finished_at: datetime | None = Field(default=None, description="When it ended.")
    superseded: bool = Field(default=False, description="A later round or retry took its place.")
    inner: list[InnerStep] = Field(default_factory=list, description="What its host does by itself, in order.")


class Run(RunSummary):
    """A run with its plan and all that came of it."""

    plan: dict[str, Any] = Field(description="The plan as it runs, with what looks like a secret hidden.")
    inputs: dict[str, Any] = Field(description="The inputs that were given, with what looks like a secret hidden.")
    about: dict[str, Any] = Field(default_factory=dict, description="What else is known of it, such as the service.")
    steps: list[RunStep] = Field(description="The steps of the plan in its order, then what undid them, as they stand.")
    earlier: list[RunStep] = Field(
        default_factory=list, description="Earlier rounds and tries, whose place others took, oldest first."
    )
    waits_for: UUID | None = Field(default=None, description="The run with the same key that goes before it.")


class RunPage(Answer):
    """A page of runs, newest first."""

    items: list[RunSummary] = Field(description="The runs of this page.")
    next_cursor: str | None = Field(default=None, description="Pass it as `cursor` to get the next page.")
