"""A task as it is dispatched and as the ledger holds it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID, uuid5

import asyncpg

from common.canonical import work_digest
from common.confinement import UNCONFINED, Confinement
from common.lifecycle import Status
from common.policy.model import Effect, Ruling
from common.progress import percent_of
from orchestrator.identities.model import Caller
from orchestrator.placement.model import Aim
from orchestrator.placement.rules import aim_of

ATTEMPTS_IF_IDEMPOTENT = 3
NORMAL_PRIORITY = 3
# Names the approvals that tasks wait for, each after its task.
APPROVALS = UUID("5f0d3c0e-6a0b-5d0e-9c41-7b1f6a3f2e58")

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def precedence_of(priority: int) -> int:
    """Return the precedence of a dispatch with a priority of 1 to 5: -2 to 2."""
    return priority - NORMAL_PRIORITY


@dataclass(frozen=True)
class NewTask:
    """Work to dispatch, checked. `agent_type` is the pool that will run it.

    `concurrency_limit` is given with a `concurrency_key` and only then; after `stop_after` failures of the tasks of the
    key, which is that of a fan-out, none of the rest begins; `expires_after` limits the waiting, which begins after a
    `pause`.
    `precedence` orders claims over HTTP, higher first; without one it follows from the priority. `ruling` says by which
    rule of the policy it may run: no task is made without one. `approval_id` is an approval that was asked for before.
    `requested_by` is None where those who store it say who does.
    """

    task_id: UUID
    request_id: UUID
    trace_id: UUID
    work_type: str
    agent_type: str
    parameters: Mapping[str, Any]
    hints: Mapping[str, Any]
    priority: int
    idempotent: bool
    max_attempts: int
    ruling: Ruling
    approval_id: UUID | None = None
    ordering_key: str | None = None
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    expires_after: timedelta | None = None
    rerun_of: UUID | None = None
    precedence: int | None = None
    requested_by: Caller | None = None
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_after: int | None = None
    pause: timedelta = timedelta(0)

    @cached_property
    def aimed_at(self) -> Aim | None:
        """Who may take it, when not everybody of the pool may."""
        confinement = self.ruling.confinement
        if not self.hints and confinement is UNCONFINED:
            return None
        return aim_of(self.agent_type, self.hints, confinement)

    @property
    def aim(self) -> str:
        """The key of `aimed_at`; empty for everybody."""
        aim = self.aimed_at
        return "" if aim is None else aim.key

    @property
    def effective_precedence(self) -> int:
        """The precedence that it has in the ledger: 0 is normal."""
        return precedence_of(self.priority) if self.precedence is None else self.precedence

    @property
    def effect(self) -> Effect:
        return self.ruling.effect

    @property
    def policy_version(self) -> str:
        return self.ruling.policy_version

    @property
    def confinement(self) -> Confinement:
        return self.ruling.confinement

    @property
    def status(self) -> Status:
        """Where it begins; an approval that it brings along is checked before it is stored."""
        if self.ruling.approval is None or self.approval_id is not None:
            return Status.PENDING
        return Status.AWAITING_APPROVAL

    @property
    def effective_approval_id(self) -> UUID | None:
        """The approval that lets it run: the one it brings along, or the one that it has to wait for."""
        if self.status is Status.AWAITING_APPROVAL:
            return uuid5(APPROVALS, str(self.task_id))
        return self.approval_id

    @cached_property
    def work_digest(self) -> bytes:
        """The digest of exactly what may run, which is approved, signed and checked by the agent."""
        return work_digest(
            work_type=self.work_type,
            parameters=self.parameters,
            hints=self.hints,
            target=self.agent_type,
            policy_version=self.ruling.policy_version,
        )

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked for, without the ids, as it was written."""
        return _asked(
            self,
            precedence=self.effective_precedence,
            concurrency_limit=self.concurrency_limit,
            stop_after=self.stop_after,
            expires_after=self.expires_after,
        )

    @property
    def terms(self) -> dict[str, Any]:
        """How often it may run, when, after what and until when: what people approve besides the work."""
        return _terms(
            self,
            precedence=self.effective_precedence,
            concurrency_limit=self.concurrency_limit,
            stop_after=self.stop_after,
            expires_after=self.expires_after,
        )

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over what is asked for, as it was written: the same digest means the same work.

        Another digest may be that of the same work in other words; see `dispatch.is_same`.
        """
        return digest_of(self.asked)


@dataclass(frozen=True, slots=True)
class Identity:
    """Under which ids a task is known, and what it was asked to do.

    `status` is awaiting_approval as long as it waits for `approval_id`, and pending from then on.
    """

    task_id: UUID
    request_id: UUID
    trace_id: UUID
    digest: bytes
    status: Status = Status.PENDING
    approval_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks are asked for: those that match everything given. `before` is where the last page ended."""

    statuses: Sequence[Status] | None = None
    work_type: str | None = None
    agent_type: str | None = None
    agent_id: UUID | None = None
    trace_id: UUID | None = None
    created_after: datetime | None = None
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    requested_by: str | None = None
    before: tuple[datetime, UUID] | None = None


@dataclass(frozen=True, slots=True)
class Progressed:
    """A report of a running task that was stored just now, with what an event about it carries."""

    task_id: UUID
    attempt: int
    trace_id: UUID
    request_id: UUID
    agent_id: UUID
    progress: str


@dataclass(frozen=True, slots=True)
class Task:
    """A row of `task`.

    `agent_id` is the agent of the current or last attempt. `unstarted` counts attempts that were handed back untouched.
    `requested_by` is the name of the identity that dispatched it; None for tasks of earlier versions and without
    authentication. `result` is what the executor returned, as JSON.
    One that is not `admitted` waits for its keys; one that waits is not leased before `not_before`. `read_at` is when
    the transaction began that has read the row, and `agent_name` the name of that agent, where they are told.
    """

    task_id: UUID
    request_id: UUID
    trace_id: UUID
    work_type: str
    agent_type: str
    parameters: Mapping[str, Any]
    hints: Mapping[str, Any]
    priority: int
    idempotent: bool
    max_attempts: int
    status: Status
    attempt: int
    unstarted: int
    agent_id: UUID | None
    claim_id: UUID | None
    lease_expires_at: datetime | None
    progress: str
    output: str
    error_message: str | None
    error_code: int | None
    exit_code: int | None
    duration_ms: int | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    ordering_key: str | None = None
    concurrency_key: str | None = None
    admitted: bool = True
    not_before: datetime | None = None
    expires_at: datetime | None = None
    rerun_of: UUID | None = None
    precedence: int = 0
    aim: str = ""
    artifacts_path: str | None = None
    effect: Effect = Effect.WRITE
    policy_rule: str = ""
    policy_version: str = ""
    work_digest: bytes | None = None
    confinement: Confinement = UNCONFINED
    approval_id: UUID | None = None
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    requested_by: str | None = None
    result: Any = None
    agent_name: str | None = field(default=None, compare=False)
    read_at: datetime | None = field(default=None, compare=False)

    @property
    def percent(self) -> int | None:
        """How much of the work is done, of 100, by its last report."""
        return percent_of(self.progress)

    @property
    def starts(self) -> int:
        """How often the work may have been started."""
        return self.attempt - self.unstarted

    def asked(self, *, concurrency_limit: int | None, stop_after: int | None) -> dict[str, Any]:
        """Return what was asked for, without the ids, if it was with these limits: a row does not hold them."""
        return _asked(
            self,
            precedence=self.precedence,
            concurrency_limit=concurrency_limit,
            stop_after=stop_after,
            expires_after=None if self.expires_at is None else self.expires_at - self.created_at,
        )

    def terms(self, *, concurrency_limit: int | None, stop_after: int | None) -> dict[str, Any]:
        """Return what `NewTask.terms` was, if it was with these limits."""
        return _terms(
            self,
            precedence=self.precedence,
            concurrency_limit=concurrency_limit,
            stop_after=stop_after,
            expires_after=None if self.expires_at is None else self.expires_at - self.created_at,
        )

    @classmethod
    def from_row(cls, row: asyncpg.Record | Mapping[str, Any]) -> "Task":
        typed = {
            "status": Status(row["status"]),
            "effect": Effect(row["effect"]),
            "confinement": Confinement(**row["confinement"]) if row["confinement"] else UNCONFINED,
        }
        return cls(**{**row, **typed})


def digest_of(asked: Mapping[str, Any]) -> bytes:
    """Return SHA-256 over what is asked for.

    Every release has computed this text, and compares it with what others stored; so it never changes.
    """
    return hashlib.sha256(_encode(asked).encode()).digest()


def terms_of(
    *,
    priority: int,
    precedence: int | None,
    idempotent: bool,
    max_attempts: int,
    ordering_key: str | None,
    concurrency_key: str | None,
    concurrency_limit: int | None,
    stop_after: int | None,
    expires_after: timedelta | None,
) -> dict[str, Any]:
    """Return the terms by the names that a dispatch gives to them; `precedence` where the priority does not say it."""
    return {
        "max_attempts": max_attempts,
        "idempotent": idempotent,
        "priority": priority,
        "precedence": None if precedence == precedence_of(priority) else precedence,
        "ordering_key": ordering_key,
        "concurrency_key": concurrency_key,
        "concurrency_limit": concurrency_limit,
        "stop_after_failures": stop_after,
        "expires_after_seconds": None if expires_after is None else expires_after.total_seconds(),
    }


def _terms(
    task: NewTask | Task,
    *,
    precedence: int,
    concurrency_limit: int | None,
    stop_after: int | None,
    expires_after: timedelta | None,
) -> dict[str, Any]:
    return terms_of(
        priority=task.priority,
        precedence=precedence,
        idempotent=task.idempotent,
        max_attempts=task.max_attempts,
        ordering_key=task.ordering_key,
        concurrency_key=task.concurrency_key,
        concurrency_limit=concurrency_limit,
        stop_after=stop_after,
        expires_after=expires_after,
    )


def _asked(
    task: NewTask | Task,
    *,
    precedence: int,
    concurrency_limit: int | None,
    stop_after: int | None,
    expires_after: timedelta | None,
) -> dict[str, Any]:
    always = {
        "work_type": task.work_type,
        "parameters": dict(task.parameters),
        "hints": dict(task.hints),
        "priority": task.priority,
        "idempotent": task.idempotent,
        "max_attempts": task.max_attempts,
    }
    # What was not asked for leaves the digest as it was before one could ask for it.
    optional = {
        "ordering_key": task.ordering_key,
        "concurrency_key": task.concurrency_key,
        "concurrency_limit": concurrency_limit,
        "rerun_of": None if task.rerun_of is None else str(task.rerun_of),
        "precedence": None if precedence == precedence_of(task.priority) else precedence,
        "name": task.name or None,
        "labels": dict(task.labels) or None,
        "stop_after": stop_after,
        "expires_after_seconds": None if expires_after is None else expires_after.total_seconds(),
    }
    return always | {name: value for name, value in optional.items() if value is not None}
