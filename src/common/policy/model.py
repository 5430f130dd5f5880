"""What a policy is asked, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from common.confinement import UNCONFINED, Confinement

SHORTEST_VALIDITY = 5
A_DAY = 24 * 60


class Effect(StrEnum):
    """Whether work changes anything in the world."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked about. `agent_type` is the pool that would run it."""

    work_type: str
    agent_type: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    hints: Mapping[str, Any] = field(default_factory=dict)


class ApprovalDemand(BaseModel):
    """How many people must say yes, with which roles, and for how long that holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approvers: int = Field(default=1, ge=1, le=20, description="So many people must say yes.")
    roles: Annotated[tuple[str, ...], Field(max_length=200)] = Field(
        default=("approver",), min_length=1, description="Each of them has one of these roles."
    )
    request_minutes: int = Field(default=A_DAY, ge=1, le=30 * A_DAY, description="How long the request waits for them.")
    valid_minutes: int = Field(
        default=60,
        ge=SHORTEST_VALIDITY,
        le=30 * A_DAY,
        description="No attempt begins later than this after the last yes.",
    )


@dataclass(frozen=True, slots=True)
class Ruling:
    """The rule `rule` of the policy of that version lets the work run, once `approval` is had if it is demanded."""

    rule: str
    policy_version: str
    effect: Effect
    approval: ApprovalDemand | None = None
    confinement: Confinement = UNCONFINED


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing lets the work run; `rule` is the one that came closest, None when none applies."""

    reason: str
    policy_version: str
    rule: str | None = None
