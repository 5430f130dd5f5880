"""What programs send and see of jobs: JSON with camelCase names."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from common.json_rules import Number, SafeObject, SafeText, Truth, WholeNumber
from common.labels import Labels
from common.messages import MAX_CHUNK_BYTES, MAX_TAIL_BYTES, AgentStatus, GrantedTask, Stream
from common.policy.model import Effect
from common.progress import LONGEST_REPORT
from common.seal import KeyId, Seal
from common.work import AGENT_TYPE_PATTERN, AnyWorkType
from orchestrator.http.moment import Moment
from orchestrator.jobs.model import Job, JobStatus, Taken
from orchestrator.jobs.rules import AFFINITY_KEY, STATUS_OF
from orchestrator.tasks.dispatch import LONGEST_KEY

LONGEST_NAME = 200
LONGEST_TEXT = 4096
LOWEST, HIGHEST = -(2**31), 2**31 - 1
SMALLEST, LARGEST = -(2**63), 2**63 - 1
MOST_ATTEMPTS = 100
LONGEST_WAIT_SECONDS = 60.0


def _is_there(types: object) -> object:
    """Refuse null, which could mean any type and none."""
    if types is None:
        raise PydanticCustomError("types", "must be a list of types; leave it out for any")
    return types


Types = Annotated[list[AnyWorkType], Field(max_length=100)]
WorkerId = Annotated[SafeText, Field(max_length=LONGEST_NAME, description="What the worker calls itself.")]
AttemptNumber = Annotated[
    WholeNumber | None,
    Field(default=None, ge=1, le=32_767, description="The job's `attempt`; without it the current one."),
]


class CamelCase(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", allow_inf_nan=False)


class JobRequest(CamelCase):
    """A job to be done."""

    type: AnyWorkType = Field(description="What kind of work it is.", examples=["render"])
    priority: WholeNumber = Field(default=0, ge=SMALLEST, le=LARGEST, description="Higher first; 0 is normal.")
    payload: SafeObject = Field(description="What the work type needs to know.")
    affinity_key: Annotated[SafeText, Field(max_length=LONGEST_KEY)] | None = Field(
        default=None, description="Kept for workers; it does not change the order."
    )
    max_attempts: WholeNumber = Field(default=3, ge=1, le=MOST_ATTEMPTS, description="How often it may be started.")
    request_id: UUID | None = Field(default=None, description="Makes the request safe to repeat.")


class JobOut(CamelCase):
    """A job and where it stands."""

    id: UUID
    type: str
    status: JobStatus = Field(description="queued, running, succeeded, failed or cancelled")
    priority: int
    payload: dict[str, Any]
    affinity_key: str | None
    claimed_by: str | None = Field(description="Who runs it, or ran it last.")
    lease_expires_at: datetime | None
    attempt: int = Field(description="The number of the last attempt; it rises with every claim.")
    max_attempts: int
    max_output_bytes: int = Field(description="So much of each stream of its output is kept.")
    trace_id: UUID
    request_id: UUID
    result_summary: str | None
    error_message: str | None
    artifacts_path: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job) -> Self:
        task = job.task
        return cls.model_validate(
            {
                "id": task.task_id,
                "type": task.work_type,
                "status": STATUS_OF[task.status],
                "priority": task.precedence,
                "payload": dict(task.parameters),
                "affinityKey": task.hints.get(AFFINITY_KEY),
                "claimedBy": job.claimed_by,
                "leaseExpiresAt": task.lease_expires_at,
                "attempt": task.attempt,
                "maxAttempts": task.max_attempts,
                "maxOutputBytes": job.max_output_bytes,
                "traceId": task.trace_id,
                "requestId": task.request_id,
                "resultSummary": task.output or None,
                "errorMessage": task.error_message,
                "artifactsPath": task.artifacts_path,
                "createdAt": task.created_at,
                "updatedAt": task.updated_at,
                "startedAt": task.started_at,
                "finishedAt": task.finished_at,
            }
        )


class JobPage(CamelCase):
    items: list[JobOut]
    next_cursor: str | None = Field(default=None, description="Pass it as `cursor` to get the next page.")


class ClaimRequest(CamelCase):
    """Who wants a job, and for how long."""

    worker_id: WorkerId
    lease_seconds: WholeNumber = Field(
        ge=1, le=HIGHEST, description="How long the job is the worker's without a heartbeat."
    )
    allowed_types: Annotated[Types | SkipJsonSchema[None], BeforeValidator(_is_there)] = Field(
        default=None, description="Only jobs of these types; without it, any."
    )
    worker_capabilities: Labels = Field(default_factory=dict, description="What the worker has: label and value.")
    claim_id: UUID | None = Field(default=None, description="Makes the claim safe to repeat.")
    wait_seconds: Number = Field(
        default=0, ge=0, le=LONGEST_WAIT_SECONDS, description="How long the answer may wait for a job."
    )


class SealOut(CamelCase):
    """A signature of the orchestrator; see docs/explanation/signed-work.md."""

    key_id: str
    statement: str = Field(description="JSON text; exactly these bytes (UTF-8) are signed.")
    signature: str = Field(description="Ed25519, base64.")

    @classmethod
    def of(cls, seal: Seal) -> Self:
        return cls(keyId=seal.key_id, statement=seal.statement, signature=seal.signature)


class GrantOut(CamelCase):
    """What else decides what the job may do. With the job it is all that `seal` signs."""

    hints: dict[str, Any] = Field(description="The hints of the dispatch; they are part of the digest.")
    target: str | None = Field(description="The pool that the job is for.")
    policy_version: str = Field(description="The policy that let it run.")
    effect: Effect = Field(description="read or write: whether it changes anything.")
    approval_id: UUID | None = Field(description="The approval of exactly this, where one was needed.")
    confinement: dict[str, Any] = Field(description="How its programs must be shut in; empty: as every program is.")

    @classmethod
    def of(cls, grant: GrantedTask) -> Self:
        return cls(
            hints=grant.work.hints,
            target=grant.target,
            policyVersion=grant.policy_version,
            effect=grant.effect,
            approvalId=grant.approval_id,
            confinement={
                to_camel(name): getattr(grant.confinement, name) for name in sorted(grant.confinement.demands)
            },
        )


class ClaimAnswer(CamelCase):
    job: JobOut | None = Field(description="The job, which is the worker's now; null when there is none for it.")
    grant: GrantOut | None = None
    seal: SealOut | None = Field(default=None, description="Null where the orchestrator signs nothing.")

    @classmethod
    def of(cls, taken: Taken | None) -> Self:
        if taken is None:
            return cls(job=None)
        seal = None if taken.seal is None else SealOut.of(taken.seal)
        return cls(job=JobOut.of(taken.job), grant=GrantOut.of(taken.grant), seal=seal)


class OwnerRequest(CamelCase):
    """What every report of a worker names."""

    worker_id: WorkerId
    attempt: AttemptNumber


class HeartbeatRequest(OwnerRequest):
    lease_seconds: WholeNumber = Field(ge=1, le=HIGHEST, description="The lease runs anew for so long.")


class HeartbeatAnswer(JobOut):
    """The job, and whether to go on with it."""

    cancelled: bool = Field(description="The job was cancelled: stop it, and say `fail` with `cancelled`.")


class ProgressRequest(OwnerRequest):
    progress: SafeText = Field(
        max_length=LONGEST_REPORT,
        description="Where it stands, with a percentage first if there is one: `40% copying`.",
    )


class OutputRequest(OwnerRequest):
    """A piece of what the job wrote."""

    stream: Stream = Field(description="stdout or stderr")
    offset: WholeNumber = Field(ge=0, le=LARGEST, description="How many bytes (UTF-8) of that stream come before it.")
    number: WholeNumber = Field(
        ge=0, le=HIGHEST, description="Counts the pieces of the attempt from 0, over both streams."
    )
    text: SafeText = Field(max_length=MAX_CHUNK_BYTES)


class EndRequest(OwnerRequest):
    """How an attempt ended."""

    result_summary: SafeText | None = Field(default=None, max_length=MAX_TAIL_BYTES, description="What came of it.")
    artifacts_path: SafeText | None = Field(default=None, max_length=LONGEST_TEXT, description="Where its files are.")
    exit_code: WholeNumber | None = Field(default=None, ge=LOWEST, le=HIGHEST)
    duration_ms: WholeNumber | None = Field(default=None, ge=0, le=LARGEST)
    output_bytes: dict[Stream, Annotated[WholeNumber, Field(ge=0, le=LARGEST)]] | None = Field(
        default=None, description="How much each stream holds in all, so that readers know when they have everything."
    )
    output_dropped: dict[Stream, Annotated[WholeNumber, Field(ge=0, le=LARGEST)]] | None = Field(
        default=None, description="How much each stream wrote beyond the limit."
    )


class CompleteRequest(EndRequest):
    pass


class FailRequest(EndRequest):
    error_message: SafeText = Field(max_length=LONGEST_TEXT, description="What went wrong, for people.")
    retryable: Truth = Field(default=False, description="Another attempt may end differently.")
    error_code: WholeNumber | None = Field(default=None, ge=1000, le=9999, description="5001 timeout, 5005 host, …")
    started: Truth = Field(default=True, description="False hands the job back untouched: the attempt does not count.")
    cancelled: Truth = Field(default=False, description="It was stopped because it was cancelled.")


class WorkerResources(CamelCase):
    cpu_percent: Number = Field(default=0, ge=0)
    memory_percent: Number = Field(default=0, ge=0)
    gpu_vram_total_gb: Number | None = Field(default=None, ge=0)
    gpu_vram_available_gb: Number | None = Field(default=None, ge=0)


class WorkerReport(CamelCase):
    """Who a worker is, what it can do, and what it does right now."""

    agent_type: str = Field(default="http", pattern=AGENT_TYPE_PATTERN)
    hostname: SafeText = Field(default="", max_length=LONGEST_NAME)
    version: SafeText = Field(default="", max_length=LONGEST_NAME)
    work_types: Annotated[list[AnyWorkType], Field(max_length=100)] = Field(default_factory=list)
    slots: WholeNumber = Field(default=1, ge=1, le=10_000)
    current_jobs: Annotated[list[UUID], Field(max_length=10_000)] = Field(default_factory=list)
    status: AgentStatus = AgentStatus.ONLINE
    resources: WorkerResources = Field(default_factory=WorkerResources)
    labels: Labels = Field(default_factory=dict)
    started_at: Moment | None = None
    trusted_keys: Annotated[list[KeyId], Field(max_length=100)] | None = Field(
        default=None, description="The keys whose signatures count for the worker; none for one that checks none."
    )
    sent_at: AwareDatetime | None = Field(default=None, description="The time by the worker's clock.")
    boot_id: UUID | None = Field(default=None, description="A random name of the worker's process.")


class OrderOut(CamelCase):
    action: str = Field(description="pause, drain or leave")
    until: datetime | None = None
    started_at: datetime | None = Field(default=None, description="The process that a drain is for.")
    boot_id: UUID | None = Field(default=None, description="The process that is to leave: an earlier one still runs.")
    note: str = ""


class CancelledJob(CamelCase):
    job_id: UUID
    attempt: int


class WorkerOrders(CamelCase):
    orders: list[OrderOut] = Field(description="What people ordered; empty when the worker may work.")
    cancelled: list[CancelledJob] = Field(description="Of its current jobs those that it must stop.")
    keys: list[SealOut] = Field(
        default_factory=list, description="The orchestrator's keys have changed: one statement, signed with each."
    )
