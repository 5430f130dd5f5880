"""What callers send and see of the policy."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from common.confinement import Confinement
from common.json_rules import SafeObject
from common.policy.model import Effect, Refused, Ruling
from common.policy.read import Approval, Policy
from common.policy.rules import Finding
from common.work import WORK_TYPE_PATTERN
from orchestrator.placement.schemas import Hints


class PolicyOut(BaseModel):
    """The policy in force."""

    version: str = Field(description="The number in the file, and a digest of what the rules say.")
    source: str = Field(description="The file that it was read from, or `built in`.")
    rules: list[dict[str, Any]] = Field(description="The rules in their order: the first that matches decides.")

    @classmethod
    def of(cls, policy: Policy, source: str) -> "PolicyOut":
        rules = [rule.model_dump(mode="json", exclude_defaults=True) for rule in policy.rule]
        return cls(version=policy.id, source=source, rules=rules)


class ExplainRequest(BaseModel):
    """Work, as in a dispatch."""

    model_config = ConfigDict(extra="forbid")

    work_type: str = Field(pattern=WORK_TYPE_PATTERN, description="What kind of work it is.")
    parameters: SafeObject = Field(default_factory=dict, description="What the work type needs to know.")
    hints: Hints = Field(default_factory=Hints, description="Where the work should go.")


class FindingOut(BaseModel):
    """What one rule has to do with the work."""

    rule: str
    matches: bool
    mismatches: list[str] = Field(description="Why it does not match.")
    violations: list[str] = Field(description="What the work may not do, if it matches.")


class Explained(BaseModel):
    """What the policy says about work, and why. Nothing is dispatched."""

    allowed: bool
    reason: str | None = Field(description="Why it is refused.")
    rule: str | None = Field(description="The rule that decides; for what none matches, the one that comes closest.")
    policy_version: str
    effect: Effect | None = None
    approval: Approval | None = Field(default=None, description="What approval it needs.")
    confinement: Confinement | None = None
    findings: list[FindingOut] = Field(description="The rules in their order, up to the one that decides.")

    @classmethod
    def of(cls, decision: Ruling | Refused, findings: list[Finding]) -> "Explained":
        seen = [
            FindingOut(
                rule=one.rule, matches=one.matches, mismatches=list(one.mismatches), violations=list(one.violations)
            )
            for one in findings
        ]
        common = {"rule": decision.rule, "policy_version": decision.policy_version, "findings": seen}
        if isinstance(decision, Refused):
            return cls(allowed=False, reason=decision.reason, **common)
        demand = decision.approval
        return cls(
            allowed=True,
            reason=None,
            effect=decision.effect,
            approval=None
            if demand is None
            else Approval(
                approvers=demand.approvers,
                roles=demand.roles,
                request_minutes=demand.request_minutes,
                valid_minutes=demand.valid_minutes,
            ),
            confinement=decision.confinement,
            **common,
        )
