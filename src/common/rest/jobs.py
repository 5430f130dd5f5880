"""Jobs of the queue API: creating, claiming and reporting them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer
from pydantic.alias_generators import to_camel, to_snake
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from common.artifacts import ArtifactName, ArtifactType, PieceOfFile, Sha256
from common.canonical import MAX_INTEGER
from common.confinement import Confinement
from common.json_rules import Line, Number, SafeObject, SafeText, Truth, WholeNumber, check_line
from common.labels import Labels
from common.messages import (
    LONGEST_MESSAGE,
    MAX_CHUNK_BYTES,
    MAX_TAIL_BYTES,
    MOST_STEPS,
    StepName,
    StepStatus,
    Stream,
)
from common.moment import Moment
from common.policy.model import Effect
from common.progress import LONGEST_REPORT
from common.rest.base import OrNewer
from common.rest.camel import CamelAnswer, CamelRequest
from common.rest.work import LONGEST_KEY
from common.result import Result
from common.work import AnyWorkType

LONGEST_NAME = 200
LOWEST, HIGHEST = -(2**31), 2**31 - 1
MOST_ATTEMPTS = 100
LONGEST_WAIT_SECONDS = 60.0


def _is_there(types: object) -> object:
    """Refuse null, which could mean any type and none."""
    if types is None:
        raise PydanticCustomError("types", "must be a list of types; leave it out for any")
    return types


def _snake_case(given: object) -> object:
    return {to_snake(name): value for name, value in given.items()} if isinstance(given, dict) else given


def _demands(confinement: Confinement) -> dict[str, Any]:
    return {to_camel(name): getattr(confinement, name) for name in sorted(confinement.demands)}


Types = Annotated[list[AnyWorkType], Field(max_length=100)]
WorkerId = Annotated[
    str, Field(max_length=LONGEST_NAME, description="What the worker calls itself."), AfterValidator(check_line)
]
Sizes = dict[Stream, Annotated[WholeNumber, Field(ge=0, le=MAX_INTEGER)]]
# An unknown demand is an error: the worker could not enforce it.
Demands = Annotated[Confinement, BeforeValidator(_snake_case), PlainSerializer(_demands)]


class JobStatus(StrEnum):
    """Where a job stands; `queued` is all that waits."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobRequest(CamelRequest):
    """A job to be done."""

    type: AnyWorkType = Field(description="What kind of work it is.", examples=["render"])
    priority: WholeNumber = Field(default=0, ge=-MAX_INTEGER, le=MAX_INTEGER, description="Higher first; 0 is normal.")
    payload: SafeObject = Field(description="What the work type needs to know.")
    affinity_key: Annotated[str, Field(max_length=LONGEST_KEY), AfterValidator(check_line)] | None = Field(
        default=None, description="Kept for workers; it does not change the order."
    )
    max_attempts: WholeNumber = Field(default=3, ge=1, le=MOST_ATTEMPTS, description="How often it may be started.")
    request_id: UUID | None = Field(default=None, description="Makes the request safe to repeat.")


class Job(CamelAnswer):
    """A job and where it stands."""

    id: UUID = Field(description="Its id: the `task_id` of the task.")
    type: str = Field(description="What kind of work it is.")
    status: OrNewer[JobStatus] = Field(description="queued, running, succeeded, failed or cancelled")
    priority: int = Field(description="Higher first; 0 is normal.")
    payload: dict[str, Any] = Field(description="What the work type needs to know.")
    affinity_key: str | None = Field(description="Kept for workers; it does not change the order.")
    claimed_by: str | None = Field(description="Who runs it, or ran it last.")
    lease_expires_at: datetime | None = Field(description="Until when it is the worker's, unless it is renewed.")
    attempt: int = Field(description="The number of the last attempt; it rises with every claim.")
    max_attempts: int = Field(description="How often it may be started.")
    max_output_bytes: int = Field(description="So much of each stream of its output is kept.")
    trace_id: UUID = Field(description="Correlates everything that belongs together.")
    request_id: UUID = Field(description="The idempotency key of its dispatch.")
    result_summary: str | None = Field(description="What the worker said at the end.")
    error_message: str | None = Field(description="Why it failed or was cancelled.")
    artifacts_path: str | None = Field(description="Where the worker put its files.")
    created_at: datetime = Field(description="When it was created.")
    updated_at: datetime = Field(description="When it last changed.")
    started_at: datetime | None = Field(description="When the current or last attempt began.")
    finished_at: datetime | None = Field(description="When it ended.")


class JobPage(CamelAnswer):
    """A page of jobs, newest first."""

    items: list[Job] = Field(description="The jobs of this page.")
    next_cursor: str | None = Field(default=None, description="Pass it as `cursor` to get the next page.")


class ClaimRequest(CamelRequest):
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


class JobGrant(CamelAnswer):
    """What else decides what the job may do. With the job it is all that the signature covers."""

    hints: dict[str, Any] = Field(description="The hints of the dispatch; they are part of the digest.")
    target: str | None = Field(description="The pool that the job is for.")
    policy_version: str = Field(description="The policy that let it run.")
    effect: Effect = Field(description="read or write: whether it changes anything.")
    approval_id: UUID | None = Field(description="The approval of exactly this, where one was needed.")
    confinement: Demands = Field(description="How its programs must be confined; empty: as every program is.")


class ClaimAnswer(CamelAnswer):
    """A job that is the worker's now, and what it may do."""

    job: Job | None = Field(description="The job, which is the worker's now; null when there is none for it.")
    grant: JobGrant | None = Field(default=None, description="What else decides what the job may do.")
    signature: str | None = Field(
        default=None,
        description="JWS (`chiffon-grant+jwt`) over job and grant for this worker; null where nothing is signed.",
    )


class OwnerRequest(CamelRequest):
    """What every report of a worker names."""

    worker_id: WorkerId
    attempt: WholeNumber | None = Field(
        default=None, ge=1, le=32_767, description="The job's `attempt`; without it the current one."
    )


class HeartbeatRequest(OwnerRequest):
    """A worker keeps its job."""

    lease_seconds: WholeNumber = Field(ge=1, le=HIGHEST, description="The lease runs anew for so long.")


class HeartbeatAnswer(Job):
    """The job, and whether to go on with it."""

    cancelled: bool = Field(description="The job was cancelled: stop it, and say `fail` with `cancelled`.")


class ProgressRequest(OwnerRequest):
    """Where a job stands."""

    progress: Line = Field(
        max_length=LONGEST_REPORT,
        description="Where it stands, with a percentage first if there is one: `40% copying`.",
    )


class OutputRequest(OwnerRequest):
    """A piece of what the job wrote."""

    stream: Stream = Field(description="stdout or stderr")
    offset: WholeNumber = Field(
        ge=0, le=MAX_INTEGER, description="How many bytes (UTF-8) of that stream come before it."
    )
    number: WholeNumber = Field(
        ge=0, le=HIGHEST, description="Counts the pieces of the attempt from 0, over both streams."
    )
    text: SafeText = Field(max_length=MAX_CHUNK_BYTES, description="The piece.")


class JobStep(CamelRequest):
    """Where an inner step of a job stands: a part of it that the worker's host does by itself."""

    position: WholeNumber = Field(ge=0, le=MOST_STEPS - 1, description="Its place among the steps of the job, from 0.")
    name: StepName = Field(description="What it is called; `rollback` is the last one of a repair.")
    status: StepStatus = Field(description="in_progress, succeeded, failed or skipped; all but the first are final.")
    started_at: Moment | None = Field(default=None, description="When it began, by the worker's clock.")
    finished_at: Moment | None = Field(default=None, description="When it ended, by the worker's clock.")
    message: Line = Field(default="", max_length=LONGEST_MESSAGE, description="What there is to say of it.")


class StepsRequest(OwnerRequest):
    """Where inner steps of the job stand."""

    steps: list[JobStep] = Field(min_length=1, max_length=MOST_STEPS, description="The oldest report first.")


class StepsAnswer(CamelAnswer):
    """What is stored of inner steps."""

    through: StepName | None = Field(
        default=None,
        description="The last step, when how the job ended is stored; then the worker may forget that.",
    )


class ArtifactRequest(OwnerRequest):
    """A piece of a file that the job keeps."""

    name: ArtifactName = Field(description="What the file is called: a relative path.")
    type: ArtifactType = Field(description="file, or what a step of a run keeps, such as build_log.")
    sha256: Sha256 = Field(description="The SHA-256 of the whole file, in hexadecimal digits.")
    size: WholeNumber = Field(ge=0, le=MAX_INTEGER, description="How many bytes the whole file has.")
    offset: WholeNumber = Field(ge=0, le=MAX_INTEGER, description="How many bytes of the file come before the piece.")
    data: PieceOfFile = Field(description="The piece in base64, at most 131072 bytes of the file.")


class ArtifactAnswer(CamelAnswer):
    """What has become of the file so far."""

    stored: bool = Field(description="The whole file is stored.")
    refused: str | None = Field(default=None, description="Why it never will be; then no more pieces are wanted.")


class FileRequest(OwnerRequest):
    """The worker needs a piece of a file that the job brings with it."""

    path: ArtifactName = Field(description="The file: a key of `files` in the payload.")
    offset: WholeNumber = Field(
        default=0, ge=0, le=MAX_INTEGER, description="How many bytes of the file the worker has already."
    )


class FileAnswer(CamelAnswer):
    """A piece of a file."""

    offset: int = Field(default=0, description="How many bytes of the file come before it.")
    size: int = Field(default=0, description="How many bytes the whole file has.")
    sha256: str = Field(default="", description="The SHA-256 of the whole file, in hexadecimal digits.")
    data: str = Field(default="", description="The piece in base64; empty where there is none.")
    problem: str = Field(default="", description="Why the file is not to be had; else empty.")
    pending: bool = Field(default=False, description="The file is still on its way: ask again.")


class EndRequest(OwnerRequest):
    """How an attempt ended."""

    result_summary: SafeText | None = Field(
        default=None, max_length=MAX_TAIL_BYTES, description="The result, or the end of the output."
    )
    artifacts_path: Line | None = Field(default=None, max_length=LONGEST_MESSAGE, description="Where its files are.")
    exit_code: WholeNumber | None = Field(
        default=None, ge=LOWEST, le=HIGHEST, description="The exit status of its program."
    )
    result: Result = Field(default=None, description="What it returned: JSON, at most 65536 bytes of it.")
    duration_ms: WholeNumber | None = Field(default=None, ge=0, le=MAX_INTEGER, description="How long the attempt ran.")
    output_bytes: Sizes | None = Field(
        default=None, description="How much each stream holds in all, so that readers know when they have everything."
    )
    output_dropped: Sizes | None = Field(default=None, description="How much each stream wrote beyond the limit.")


class CompleteRequest(EndRequest):
    """An attempt that succeeded."""


class FailRequest(EndRequest):
    """An attempt that failed, was stopped, or was not begun."""

    error_message: SafeText = Field(max_length=LONGEST_MESSAGE, description="What went wrong, for people.")
    retryable: Truth = Field(default=False, description="Another attempt may end differently.")
    error_code: WholeNumber | None = Field(default=None, ge=1000, le=9999, description="5001 timeout, 5005 host, …")
    started: Truth = Field(default=True, description="False hands the job back untouched: the attempt does not count.")
    cancelled: Truth = Field(default=False, description="It was stopped because it was cancelled.")
