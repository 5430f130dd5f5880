"""A job, and what workers ask of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import JsonValue

from common.messages import GrantedTask, ResultStatus, Stream
from common.orders import Drain, Leave, Pause
from orchestrator.tasks.model import Task


@dataclass(frozen=True, slots=True)
class Job:
    """A task, and who runs it or ran it last in the words that it gave itself.

    Of each stream of its output `max_output_bytes` are kept.
    """

    task: Task
    claimed_by: str | None
    max_output_bytes: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A job that was claimed: what its worker is granted, and the signature over that; None where nothing is signed."""

    job: Job
    grant: GrantedTask
    signature: str | None


@dataclass(frozen=True, slots=True)
class Worker:
    """Who asks. `name` is what it calls itself; its id as an agent follows from it."""

    name: str
    agent_id: UUID


@dataclass(frozen=True, slots=True)
class Registered:
    """A worker that may have work, as the ledger knows it; `on_trial`: one task, to show that it is well again."""

    pool: str
    labels: Mapping[str, Any]
    on_trial: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """A claim: what a worker wants, and for how long. `types` None: any.

    A claim with an id that the worker chose (`repeatable`) gets again what it got before.
    """

    worker: Worker
    claim_id: UUID
    repeatable: bool
    lease: timedelta
    types: frozenset[str] | None = None
    capabilities: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[UUID, UUID]:
        return self.worker.agent_id, self.claim_id


@dataclass(frozen=True, slots=True)
class OwnAttempt:
    """An attempt of a worker, which it names by its number."""

    task_id: UUID
    number: int
    agent_id: UUID
    outcome: str | None
    stop_reported: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker that reports itself is told: what people ordered, and as (task, attempt) what it must stop, and of
    what it must say how it ended.
    """

    order: Pause | Drain | Leave | None
    cancelled: Sequence[tuple[UUID, int]]
    unsettled: Sequence[tuple[UUID, int]]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker says that its attempt ended."""

    status: ResultStatus
    summary: str = ""
    artifacts_path: str | None = None
    error_message: str | None = None
    error_code: int | None = None
    exit_code: int | None = None
    duration_ms: int | None = None
    output_bytes: Mapping[Stream, int] | None = None
    output_dropped: Mapping[Stream, int] | None = None
    result: JsonValue = None
    retryable: bool = False
    started: bool = True
