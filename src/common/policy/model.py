"""What a policy is asked, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from common.confinement import UNCONFINED, Confinement


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


@dataclass(frozen=True, slots=True)
class ApprovalDemand:
    """How many people must say yes, with which of these roles, and for how long that holds.

    `request_minutes` is how long the request waits for them, `valid_minutes` (5 or more) how long the work may then
    wait to be started.
    """

    approvers: int
    roles: tuple[str, ...]
    request_minutes: int
    valid_minutes: int


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
