"""Approvals: asking for one, answering it, and what callers see of it."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import Field

from common.json_rules import Line
from common.policy.model import Effect
from common.rest.base import Answer, OrNewer, Request
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

LONGEST_TEXT = 2000


class ApprovalState(StrEnum):
    """Where an approval stands. Nothing leaves the last four."""

    WAITING = "waiting"
    APPROVED = "approved"
    USED = "used"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class ApprovalRequest(Request):
    """Work that needs an approval, and its terms, as in the dispatch that is to use it."""

    work_type: WorkTypeName
    parameters: WorkParameters = Field(default_factory=dict)
    hints: WorkHints = Field(default_factory=Hints)
    priority: Priority = 3
    idempotent: Idempotent = False
    max_attempts: MaxAttempts = None
    ordering_key: OrderingKey = None
    concurrency_key: ConcurrencyKey = None
    concurrency_limit: ConcurrencyLimit = None
    expires_after_seconds: ExpiresAfterSeconds = None
    note: Line = Field(default="", max_length=LONGEST_TEXT, description="Why, for those who are asked.")
    trace_id: UUID | None = Field(default=None, description="What it belongs to; else the request's X-Trace-Id.")


class ApproveRequest(Request):
    """A yes."""

    comment: Line = Field(default="", max_length=LONGEST_TEXT, description="A remark, for people.")


class RejectRequest(Request):
    """A no."""

    reason: Line = Field(min_length=1, max_length=LONGEST_TEXT, description="Why not; the task keeps it.")


class CommentRequest(Request):
    """A remark, which decides nothing."""

    text: Line = Field(min_length=1, max_length=LONGEST_TEXT, description="The remark.")


class Vote(Answer):
    """The answer of one person."""

    name: str = Field(description="Who answered.")
    yes: bool = Field(description="Yes or no.")
    comment: str = Field(description="The remark or the reason.")
    at: datetime = Field(description="When.")
    token_id: UUID | None = Field(description="The token that it was sent with.")
    token_created_by: str | None = Field(description="Who made that token.")
    token_age_seconds: float | None = Field(
        description="For how long its owner alone had had that token, since it was claimed."
    )


class Comment(Answer):
    """A remark."""

    name: str = Field(description="Who made it.")
    text: str = Field(description="The remark.")
    at: datetime = Field(description="When.")


class Approval(Answer):
    """A question to people: may exactly this run?"""

    approval_id: UUID = Field(description="Its id.")
    state: OrNewer[ApprovalState] = Field(description="waiting, approved, used, rejected, expired or cancelled")
    task_id: UUID | None = Field(description="The task that waits for it, or was dispatched with it.")
    trace_id: UUID | None = Field(description="The trace that it belongs to.")
    work_type: str = Field(description="What kind of work it is.")
    target: str = Field(description="The type of agent that would run it.")
    effect: Effect = Field(description="read, or write when it may change something.")
    rule: str = Field(description="The rule of the policy that asks.")
    policy_version: str = Field(description="The policy that was asked.")
    digest: str = Field(description="SHA-256 over exactly the work, its target and the policy's version, in hex.")
    approved_digest: str = Field(description="SHA-256 over `digest` and the terms, in hex: what people approve.")
    max_attempts: int = Field(description="How often the work may start by this approval.")
    approvers: int = Field(description="So many people must say yes.")
    yes: int = Field(description="So many did.")
    roles: list[str] = Field(description="Of those who answer, each has one of these.")
    requested_by: str = Field(description="Who asks.")
    note: str = Field(description="Why, for those who are asked.")
    created_at: datetime = Field(description="When it was asked for.")
    expires_at: datetime = Field(description="It waits for answers until then.")
    decided_at: datetime | None = Field(description="When it was decided.")
    valid_until: datetime | None = Field(description="Once approved: no attempt begins after this.")
    reason: str | None = Field(description="Why it was rejected or has expired.")


class ApprovalDetail(Approval):
    """An approval with the work, and with what people said."""

    work: dict[str, Any] = Field(
        description="What will run, as data; `terms` in it is how often, with which priority and keys, and how long it "
        "may wait."
    )
    shown: str = Field(
        description="The same as JSON text for people, in which every character beyond ASCII is written out. "
        "Read as JSON it is `work`."
    )
    votes: list[Vote] = Field(description="The answers of people, in their order.")
    comments: list[Comment] = Field(description="The remarks, in their order.")


class ApprovalPage(Answer):
    """A page of approvals, newest first."""

    items: list[Approval] = Field(description="The approvals of this page.")
    next_cursor: str | None = Field(default=None, description="Pass it as `cursor` to get the next page.")
