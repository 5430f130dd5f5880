"""An approval as it is asked for and as the ledger holds it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypedDict
from uuid import UUID

import asyncpg

from common.canonical import canonical_json
from common.lifecycle import Status
from common.policy.model import ApprovalDemand, Effect
from common.rest.approvals import ApprovalState
from orchestrator.identities.model import Caller

# How often work may run, when, after what and until when, by the names that a dispatch gives to it.
Terms = Mapping[str, Any]


class AskedTerms(TypedDict, total=False):
    """The terms of work that is asked about beforehand; see `ApprovalRequest`."""

    priority: int
    idempotent: bool
    max_attempts: int | None
    ordering_key: str | None
    concurrency_key: str | None
    concurrency_limit: int | None
    expires_after: timedelta | None


def approved_digest(work_digest: bytes, terms: Terms) -> bytes:
    """Return SHA-256 (32 bytes) over what people approve: exactly this work on exactly these terms."""
    return hashlib.sha256(canonical_json({"terms": terms, "work": work_digest.hex()})).digest()


@dataclass(frozen=True, slots=True)
class NewApproval:
    """A question to people: may exactly this run? `task_id` is the task that waits for the answer, if one does.

    The question waits for `demand.request_minutes`, and no longer than `at_most`.
    """

    approval_id: UUID
    digest: bytes
    work_type: str
    target: str
    parameters: Mapping[str, Any]
    hints: Mapping[str, Any]
    terms: Terms
    effect: Effect
    policy_version: str
    rule: str
    demand: ApprovalDemand
    requested_by: Caller
    task_id: UUID | None = None
    trace_id: UUID | None = None
    at_most: timedelta | None = None
    note: str = ""

    @property
    def approved_digest(self) -> bytes:
        return approved_digest(self.digest, self.terms)

    @property
    def known_to(self) -> frozenset[str]:
        """Who else knows the token with which it is asked."""
        token = self.requested_by.token
        return frozenset() if token is None else token.known_to - {self.requested_by.name}

    @property
    def waits(self) -> timedelta:
        """How long people have to answer."""
        wanted = timedelta(minutes=self.demand.request_minutes)
        return wanted if self.at_most is None else min(wanted, self.at_most)


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person said; a person says one thing.

    `token_created_by` made the token that it was sent with; `token_age` is how long its owner alone had had that. Votes
    of earlier versions have neither. `until` is when a yes ends to hold, if that was said.
    """

    principal_id: UUID
    name: str
    yes: bool
    comment: str
    at: datetime
    token_id: UUID | None = None
    token_created_by: str | None = None
    token_age: timedelta | None = None
    until: datetime | None = None

    @property
    def token_age_seconds(self) -> float | None:
        return None if self.token_age is None else round(self.token_age.total_seconds(), 3)


@dataclass(frozen=True, slots=True)
class Comment:
    """A remark; it decides nothing."""

    name: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """A row of `approval`. It waits until `expires_at`; once approved, no attempt begins after `valid_until`.

    `digest` is that of the work, `approved_digest` that of the work and its `terms`. `known_to` are those who know the
    token with which it was asked, besides its owner.
    """

    approval_id: UUID
    state: ApprovalState
    digest: bytes
    approved_digest: bytes
    work_type: str
    target: str
    parameters: Mapping[str, Any]
    hints: Mapping[str, Any]
    terms: Terms
    effect: Effect
    policy_version: str
    rule: str
    approvers: int
    roles: Sequence[str]
    valid_for: timedelta
    requester_id: UUID
    requested_by: str
    known_to: Sequence[str]
    note: str
    task_id: UUID | None
    trace_id: UUID | None
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    valid_until: datetime | None
    reason: str | None
    yes: int = 0

    @property
    def max_attempts(self) -> int:
        """How often the work may start."""
        return int(self.terms.get("max_attempts", 1))

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Approval":
        return cls(**{**row, "state": ApprovalState(row["state"]), "effect": Effect(row["effect"])})


@dataclass(frozen=True, slots=True)
class Discussed:
    """An approval with what people said about it, in order."""

    approval: Approval
    votes: Sequence[Vote] = field(default_factory=tuple)
    comments: Sequence[Comment] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class ApprovalFilter:
    """Which approvals are asked for: those that match everything given. `before` is where the last page ended."""

    state: ApprovalState | None = None
    task_id: UUID | None = None
    trace_id: UUID | None = None
    before: tuple[datetime, UUID] | None = None


@dataclass(frozen=True, slots=True)
class WaitingTask:
    """What must be known of a task to let it go or to end it."""

    task_id: UUID
    trace_id: UUID
    request_id: UUID
    work_type: str
    agent_type: str
    priority: int
    aim: str
    attempt: int
    status: Status
    ordering_key: str | None
    concurrency_key: str | None

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "WaitingTask":
        return cls(**{**row, "status": Status(row["status"])})


class StoredWork(Protocol):
    """A task as the ledger holds it at the moment when it is to be given to an agent."""

    @property
    def task_id(self) -> UUID: ...
    @property
    def work_type(self) -> str: ...
    @property
    def agent_type(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...
    @property
    def hints(self) -> Mapping[str, Any]: ...
    @property
    def policy_version(self) -> str: ...
    @property
    def work_digest(self) -> bytes | None: ...
    @property
    def approval_id(self) -> UUID | None: ...
    def terms(self, *, concurrency_limit: int | None, stop_after: int | None) -> Terms:
        """Return its terms, with these limits: a row does not hold them."""
        ...
