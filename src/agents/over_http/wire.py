"""The JSON of the queue API, as far as an agent needs it, and what it means in the messages of the agent."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator
from pydantic.alias_generators import to_camel, to_snake

from common.confinement import UNCONFINED, Confinement
from common.messages import (
    GrantedTask,
    Lease,
    OutputChunk,
    ResultStatus,
    StatusUpdate,
    Stream,
    WorkRequest,
    WorkResult,
    WorkStatus,
)
from common.policy.model import Effect
from common.seal import Seal

STOPPED = "The work was stopped."
# What the queue API takes; what is longer is cut.
LONGEST_NAME = 200
LONGEST_MESSAGE = 4096


class Answer(BaseModel):
    """Part of an answer. Unknown fields are ignored, so that a newer server can add some."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)


class Job(Answer):
    """A task as the queue API shows it. `attempt` names the lease: it rises with every claim, as a fence does.

    Of each stream of its output `max_output_bytes` are kept; None: all that the server takes.
    """

    id: UUID
    type: str
    payload: dict[str, JsonValue] = Field(default_factory=dict)
    attempt: int = Field(ge=1)
    trace_id: UUID
    request_id: UUID
    max_output_bytes: int | None = Field(default=None, ge=0)

    @property
    def lease(self) -> Lease:
        return Lease(task_id=self.id, fence=self.attempt)

    def granted(self, claim_id: UUID, terms: "GrantTerms | None", *, lease_seconds: float) -> GrantedTask:
        """Return the grant that a broker would have brought."""
        given = GrantTerms() if terms is None else terms
        return GrantedTask(
            claim_id=claim_id,
            work=WorkRequest(task_id=self.id, work_type=self.type, parameters=self.payload, hints=given.hints),
            trace_id=self.trace_id,
            request_id=self.request_id,
            attempt=self.attempt,
            fence=self.attempt,
            lease_seconds=lease_seconds,
            max_output_bytes=self.max_output_bytes,
            target=given.target,
            policy_version=given.policy_version,
            effect=given.effect,
            approval_id=given.approval_id,
            confinement=given.confinement,
        )


class GrantTerms(Answer):
    """What else decides what a claimed job may do; all of it is signed."""

    hints: dict[str, JsonValue] = Field(default_factory=dict)
    target: str | None = None
    policy_version: str = ""
    effect: Effect = Effect.WRITE
    approval_id: UUID | None = None
    confinement: Confinement = UNCONFINED

    @field_validator("confinement", mode="before")
    @classmethod
    def _snake_case(cls, value: Any) -> Any:
        return {to_snake(name): limit for name, limit in value.items()} if isinstance(value, dict) else value


class Signed(Answer):
    """A `Seal`, as the queue API writes it."""

    key_id: str
    statement: str
    signature: str

    @property
    def seal(self) -> Seal:
        return Seal(key_id=self.key_id, statement=self.statement, signature=self.signature)


class Claimed(Answer):
    """The answer to a claim."""

    job: Job | None
    grant: GrantTerms | None = None
    seal: Signed | None = None


class Renewal(Answer):
    """The answer to the heartbeat of a job; the rest of the job does not matter then."""

    cancelled: bool = False


class OrderedPause(Answer):
    action: Literal["pause"]
    until: datetime
    note: str | None = None


class OrderedDrain(Answer):
    action: Literal["drain"]
    note: str | None = None


class OrderedLeave(Answer):
    action: Literal["leave"]
    boot_id: UUID
    note: str | None = None


class ToCancel(Answer):
    job_id: UUID
    attempt: int


class Orders(Answer):
    """The answer to the heartbeat of a worker."""

    orders: list[OrderedPause | OrderedDrain | OrderedLeave] = Field(default_factory=list)
    cancelled: list[ToCancel] = Field(default_factory=list)
    keys: list[Signed] = Field(default_factory=list)


Body = Mapping[str, Any]


def heartbeat_body(update: StatusUpdate) -> Body:
    """Return what an agent says of itself."""
    return {
        "agentType": update.agent_type,
        "hostname": update.hostname[:LONGEST_NAME],
        "version": update.version,
        "workTypes": list(update.work_types),
        "slots": update.slots,
        "currentJobs": [str(task_id) for task_id in update.current_tasks],
        "status": update.status.value,
        "resources": {
            to_camel(name): value for name, value in update.resources.model_dump().items() if value is not None
        },
        "labels": dict(update.labels),
        "startedAt": update.started_at.isoformat(),
        **({} if update.trusted_keys is None else {"trustedKeys": list(update.trusted_keys)}),
        **({} if update.sent_at is None else {"sentAt": update.sent_at.isoformat()}),
        **({} if update.boot_id is None else {"bootId": str(update.boot_id)}),
    }


def output_body(chunk: OutputChunk, *, attempt: int) -> Body:
    return {
        "attempt": attempt,
        "stream": chunk.stream.value,
        "offset": chunk.offset,
        "number": chunk.number,
        "text": chunk.text,
    }


def progress_body(status: WorkStatus) -> Body:
    return {"attempt": status.attempt, "progress": status.progress}


def result_request(result: WorkResult) -> tuple[str, Body]:
    """Return which endpoint ends the job, and with which body; the pieces of output go ahead of it."""
    common = {
        "attempt": result.attempt,
        "resultSummary": _storable(result.output),
        "exitCode": result.exit_code,
        "durationMs": result.duration_ms,
        "outputBytes": _by_stream(result.output_bytes),
        "outputDropped": _by_stream(result.output_dropped) or None,
    }
    if result.status is ResultStatus.COMPLETED:
        return "complete", _given(common)
    return "fail", _given(
        common
        | {
            "errorMessage": _storable(result.error_message or STOPPED)[:LONGEST_MESSAGE],
            "errorCode": result.error_code,
            "retryable": result.retryable,
            "started": result.started,
            "cancelled": result.status is ResultStatus.CANCELLED,
        }
    )


def _by_stream(sizes: Mapping[Stream, int]) -> dict[str, int]:
    return {stream.value: size for stream, size in sizes.items()}


def _storable(text: str) -> str:
    """Return the text without what no database stores, such as half of a character in the name of a file."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _given(body: Body) -> Body:
    return {name: value for name, value in body.items() if value is not None}
