"""The policy in force, and what it says about work."""

from typing import Any

from pydantic import Field

from common.confinement import Confinement
from common.policy.model import ApprovalDemand, Effect
from common.rest.base import Answer, Request
from common.rest.work import Hints, WorkHints, WorkParameters, WorkTypeName


class PolicyInForce(Answer):
    """The policy in force."""

    version: str = Field(description="The number in the file, and a digest of what the rules say.")
    source: str = Field(description="The file that it was read from, or `built in`.")
    rules: list[dict[str, Any]] = Field(description="The rules in their order: the first that matches decides.")


class ExplainRequest(Request):
    """Work, as in a dispatch."""

    work_type: WorkTypeName
    parameters: WorkParameters = Field(default_factory=dict)
    hints: WorkHints = Field(default_factory=Hints)


class RuleFinding(Answer):
    """Whether one rule matches the work, and what it refuses."""

    rule: str = Field(description="The name of the rule.")
    matches: bool = Field(description="Whether it is about this work.")
    mismatches: list[str] = Field(description="Why it does not match.")
    violations: list[str] = Field(description="What the work may not do, if it matches.")


class Explained(Answer):
    """What the policy says about work, and why. Nothing is dispatched."""

    allowed: bool = Field(description="Whether the work may run.")
    reason: str | None = Field(description="Why it is refused.")
    rule: str | None = Field(description="The rule that decides; for what none matches, the one that comes closest.")
    policy_version: str = Field(description="The policy that was asked.")
    effect: Effect | None = Field(default=None, description="read, or write when it may change something.")
    approval: ApprovalDemand | None = Field(default=None, description="What approval it needs.")
    confinement: Confinement | None = Field(default=None, description="How its programs are confined.")
    findings: list[RuleFinding] = Field(description="The rules in their order, up to the one that decides.")
