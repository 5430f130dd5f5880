"""What callers send and see of approvals."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.json_rules import SafeObject, SafeText
from common.policy.model import Effect
from common.visible import visible_json
from common.work import WORK_TYPE_PATTERN
from orchestrator.approvals.model import Approval, Discussed, State
from orchestrator.placement.schemas import Hints

LONGEST_TEXT = 2000


class ApprovalRequest(BaseModel):
    """Work that somebody wants to run, as in a dispatch."""

    model_config = ConfigDict(extra="forbid")

    work_type: str = Field(pattern=WORK_TYPE_PATTERN, description="What kind of work it is.")
    parameters: SafeObject = Field(default_factory=dict, description="What the work type needs to know.")
    hints: Hints = Field(default_factory=Hints, description="Where the work should go.")
    note: SafeText = Field(default="", max_length=LONGEST_TEXT, description="Why, for those who are asked.")
    trace_id: UUID | None = Field(default=None, description="What it belongs to; else the request's X-Trace-Id.")


class Yes(BaseModel):
    """What is said with a yes."""

    model_config = ConfigDict(extra="forbid")

    comment: SafeText = Field(default="", max_length=LONGEST_TEXT)


class No(BaseModel):
    """Why not."""

    model_config = ConfigDict(extra="forbid")

    reason: SafeText = Field(min_length=1, max_length=LONGEST_TEXT)


class Remark(BaseModel):
    """Something to say."""

    model_config = ConfigDict(extra="forbid")

    text: SafeText = Field(min_length=1, max_length=LONGEST_TEXT)


class VoteOut(BaseModel):
    """What one person said."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    yes: bool
    comment: str
    at: datetime


class CommentOut(BaseModel):
    """A remark."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    text: str
    at: datetime


class ApprovalOut(BaseModel):
    """A question to people: may exactly this run?"""

    approval_id: UUID
    state: State = Field(description="waiting, approved, used, rejected, expired or cancelled")
    task_id: UUID | None = Field(description="The task that waits for it, or was dispatched with it.")
    trace_id: UUID | None
    work_type: str
    target: str = Field(description="The type of agent that would run it.")
    effect: Effect
    rule: str = Field(description="The rule of the policy that asks.")
    policy_version: str
    digest: str = Field(description="SHA-256 over exactly the work, its target and the policy's version, in hex.")
    approvers: int = Field(description="So many people must say yes.")
    yes: int = Field(description="So many did.")
    roles: list[str] = Field(description="Of those who answer, each has one of these.")
    requested_by: str
    note: str
    created_at: datetime
    expires_at: datetime = Field(description="It waits for answers until then.")
    decided_at: datetime | None
    valid_until: datetime | None = Field(description="Once approved: the work must begin before then.")
    reason: str | None = Field(description="Why it was rejected or has expired.")

    @classmethod
    def of(cls, approval: Approval) -> "ApprovalOut":
        return cls(**_shown(approval))


class ApprovalDetail(ApprovalOut):
    """An approval with the work, and with what people said."""

    work: dict[str, Any] = Field(description="What will run, as data.")
    shown: str = Field(
        description="The same as JSON text for people, in which control, bidirectional and other characters that "
        "cannot be seen are written out. Read as JSON it is `work`."
    )
    votes: list[VoteOut]
    comments: list[CommentOut]

    @classmethod
    def of_all(cls, found: Discussed) -> "ApprovalDetail":
        approval = found.approval
        work = {
            "work_type": approval.work_type,
            "target": approval.target,
            "parameters": dict(approval.parameters),
            "hints": dict(approval.hints),
            "policy_version": approval.policy_version,
        }
        return cls(
            **_shown(approval),
            work=work,
            shown=visible_json(work),
            votes=[VoteOut.model_validate(vote) for vote in found.votes],
            comments=[CommentOut.model_validate(comment) for comment in found.comments],
        )


class ApprovalPage(BaseModel):
    items: list[ApprovalOut]
    next_cursor: str | None = Field(default=None, description="Pass it as `cursor` to get the next page.")


def _shown(approval: Approval) -> dict[str, Any]:
    taken = {name: getattr(approval, name) for name in ApprovalOut.model_fields if name != "digest"}
    return {**taken, "digest": approval.digest.hex(), "roles": list(approval.roles)}
