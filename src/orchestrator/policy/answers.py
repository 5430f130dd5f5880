"""The policy, and what it says about work, as the REST API answers them."""

from collections.abc import Sequence

from common.policy.model import Refused, Ruling
from common.policy.read import Policy
from common.policy.rules import Finding
from common.rest.policy import Explained, PolicyInForce, RuleFinding

# A rule quotes what the work says, which may be long, and each rule quotes it anew.
LONGEST_FINDING = 500
MOST_FINDINGS = 20


def in_force(policy: Policy, source: str) -> PolicyInForce:
    """Return a policy and where it was read from."""
    rules = [rule.model_dump(mode="json", exclude_defaults=True) for rule in policy.rule]
    return PolicyInForce(version=policy.id, source=source, rules=rules)


def explained(decision: Ruling | Refused, findings: Sequence[Finding]) -> Explained:
    """Return what a policy decides about work, and what its rules found."""
    return Explained(
        allowed=isinstance(decision, Ruling),
        reason=_cut(decision.reason) if isinstance(decision, Refused) else None,
        rule=decision.rule,
        policy_version=decision.policy_version,
        effect=decision.effect if isinstance(decision, Ruling) else None,
        approval=decision.approval if isinstance(decision, Ruling) else None,
        confinement=decision.confinement if isinstance(decision, Ruling) else None,
        findings=[
            RuleFinding(
                rule=finding.rule,
                matches=finding.matches,
                mismatches=_first(finding.mismatches),
                violations=_first(finding.violations),
            )
            for finding in findings
        ],
    )


def _first(texts: Sequence[str]) -> list[str]:
    more = len(texts) - MOST_FINDINGS
    return [*map(_cut, texts[:MOST_FINDINGS]), *([f"… {more} more"] if more > 0 else [])]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_FINDING else f"{text[:LONGEST_FINDING]}…"
