"""Repairs: runs over compose services, as `/orchestrator/runs` takes and shows them.

Requests may spell names with underscores or in camelCase; answers have underscores. What the contract gives as a plain
object, the parameters of a planned step and `metrics_snapshot`, has the names that the contract gives there.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import AliasChoices, AliasGenerator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from common.compose import LONGEST_INSTRUCTION, PatchSource
from common.json_rules import Line, SafeText
from common.moment import Moment
from common.rest.approvals import LONGEST_TEXT
from common.rest.base import Answer, Request
from common.rest.errors import ErrorResponse

LONGEST_SERVICE = 200
LONGEST_TOKEN = 500
MOST_ON_A_PAGE = 100
MOST_SKIPPED = 10_000_000


class RepairStatus(StrEnum):
    """Where a repair stands."""

    PENDING = "pending"
    RUNNING = "running"
    AWAITING_APPROVAL = "awaiting_approval"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class RepairApprovalStatus(StrEnum):
    """Whether people were asked about a repair, and what came of it."""

    NOT_REQUIRED = "not_required"
    AWAITING = "awaiting"
    GRANTED = "granted"
    EXPIRED = "expired"


class RepairStepName(StrEnum):
    """The steps of a repair, in their order; the last undoes what the others did, when one of them fails."""

    ANALYZE = "analyze"
    PATCH = "patch"
    BUILD = "build"
    RESTART = "restart"
    VERIFY = "verify"
    ROLLBACK = "rollback"


class RepairStepStatus(StrEnum):
    """Where a step of a repair stands."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


class RepairPriority(StrEnum):
    """How urgent a repair is."""

    NORMAL = "normal"
    HIGH = "high"


class _EitherSpelling(Request):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(name, to_camel(name))),
    )


class RepairRequest(_EitherSpelling):
    """A service to repair, and how."""

    instruction: SafeText = Field(
        max_length=LONGEST_INSTRUCTION,
        description="What is to be done, for people. A unified diff in a block that begins with a line ```diff and "
        "ends with a line ``` is applied.",
        examples=["Add the missing dependency."],
    )
    target_service: Line = Field(
        max_length=LONGEST_SERVICE, description="A service of the services file, in any case.", examples=["web"]
    )
    approval_token: Line | None = Field(
        default=None,
        max_length=LONGEST_TOKEN,
        description="Taken, and counts for nothing: an approval is one of exactly this run, so there is none yet.",
        repr=False,
    )
    priority: RepairPriority = Field(default=RepairPriority.NORMAL, description="normal or high")
    patch: PatchSource | None = Field(
        default=None,
        description="What changes the files, when it is no diff in the instruction: `diff` or `commands`. With none of "
        "these, the `commands` of the service do.",
    )


class Approver(_EitherSpelling):
    """Who approves: the caller, who says so once more."""

    id: Line = Field(min_length=1, max_length=LONGEST_SERVICE, description="The caller's name, or its id.")
    role: Line = Field(min_length=1, max_length=LONGEST_SERVICE, description="A role of the caller that counts here.")


class RepairApproval(_EitherSpelling):
    """A yes to what a repair waits for."""

    approver: Approver = Field(description="Who approves.")
    token: Line = Field(
        min_length=1,
        max_length=LONGEST_TOKEN,
        description="The `approval_id` that the repair shows, or the caller's own token.",
        repr=False,
    )
    expires_at: Moment | None = Field(
        default=None,
        description="Nothing begins by this approval later than then; at the latest when the service's approvals end.",
    )


class RepairRetry(_EitherSpelling):
    """From where a repair that failed is tried again."""

    resume_from_step: Literal["patch", "build", "restart", "verify", "rollback"] | None = Field(
        default=None, description="The first step that is done again; the one that failed, without this."
    )
    reason: Line | None = Field(default=None, max_length=LONGEST_TEXT, description="Why, for those who read it later.")


class Repair(Answer):
    """A run over a compose service."""

    run_id: UUID = Field(description="Its id, also as a run.")
    status: RepairStatus = Field(description="Where it stands.")
    target_service: str = Field(description="The service.")
    instruction: str = Field(description="What is to be done.")
    priority: RepairPriority = Field(description="normal or high")
    queued_at: datetime = Field(description="When it was asked for.")
    started_at: datetime | None = Field(description="When its first step began.")
    completed_at: datetime | None = Field(description="When it ended.")
    approval_required: bool = Field(description="Whether people are asked.")
    approval_status: RepairApprovalStatus = Field(description="What came of that.")
    approval_id: UUID | None = Field(default=None, description="The approval that it waits for, or had last.")


class RepairPlanStep(Answer):
    """A step as it was planned."""

    name: RepairStepName = Field(description="Its name.")
    parameters: dict[str, Any] = Field(description="What it needs to know, for people.")


class RepairPlan(Answer):
    """What an instruction for a service comes to."""

    plan_id: UUID = Field(description="Its id.")
    generated_at: datetime = Field(description="When it was made.")
    generated_by: Literal["operator", "system", "llm"] = Field(description="Who made it: a planner of this program.")
    steps: list[RepairPlanStep] = Field(description="The steps in their order.")


class RepairStep(Answer):
    """A step as it stands."""

    name: RepairStepName = Field(description="Its name.")
    status: RepairStepStatus = Field(description="Where it stands.")
    started_at: datetime | None = Field(description="When it began, by its host's clock.")
    completed_at: datetime | None = Field(description="When it ended, by its host's clock.")
    worker_task_id: UUID | None = Field(description="The task whose host does it.")
    celery_task_id: UUID | None = Field(description="The same, by its older name.")
    celery_state: Literal["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE"] = Field(
        description="The same as `status`, in the words of older clients."
    )
    message: str | None = Field(description="What its host says about it.")
    artifact_refs: list[UUID] = Field(description="The artifacts that it left.")


class RepairArtifact(Answer):
    """A file that a step left."""

    artifact_id: UUID = Field(description="Its id.")
    type: str = Field(
        description="patch_diff, build_log, verify_log, rollback_log, metrics (also for the other logs) or "
        "plan_snapshot"
    )
    path: str = Field(description="Its path in the folder of the run.")
    checksum: str = Field(description="SHA-256 in hexadecimal digits.")
    size_bytes: int = Field(description="Its size.")
    created_at: datetime = Field(description="When it was announced.")
    signed_path: str | None = Field(
        default=None, description="Where it is downloaded without a token, for a while; null until it is stored."
    )
    missing: str | None = Field(default=None, description="Why it is not stored, and never will be.")


class RepairDetail(Repair):
    """A run over a compose service with its plan, its steps and what they left."""

    action_plan: RepairPlan = Field(description="What was planned.")
    steps: list[RepairStep] = Field(description="The steps of the plan, as they stand.")
    artifacts: list[RepairArtifact] = Field(description="What they left, oldest first.")
    diff: list[str] = Field(
        default_factory=list,
        description="With the gate pre-verify, once it is prepared: the lines of the diff that people are asked about, "
        "without the secrets of the host. The approval has the same.",
    )
    metrics_snapshot: dict[str, Any] = Field(
        description="`run` and each of `steps` with `status` and `durationMs`; `approval` with `required`, "
        "`requirement`, `status`, and of one that was given `approver`, `grantedAt` and `expiresAt`."
    )


class RepairList(Answer):
    """Repairs, newest first."""

    runs: list[Repair] = Field(description="The repairs.")


class RepairArtifacts(Answer):
    """What the steps of a repair left, oldest first."""

    artifacts: list[RepairArtifact] = Field(description="The files.")


class RepairProblem(ErrorResponse):
    """An error with what the contract adds to the one shape of all errors."""

    error: str = Field(description="What happened, as a word.", examples=["run_not_found"])
    remediation: str | None = Field(default=None, description="What helps.")
