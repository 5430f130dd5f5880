"""Rule about work before it is stored."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from common.compose import COMPOSE_REPAIR, ONLY_PLANNED
from common.errors import ChiffonError, ErrorCode, InvalidField
from common.policy.model import Refused, Ruling, Work
from common.policy.read import Policy, parse_policy, read_policy
from common.policy.rules import Finding, decide, explain

DEFAULT_FILE = "default.toml"

RuleWork = Callable[[Work], Ruling]


class RefusedByPolicy(ChiffonError):
    """The policy does not let the work run; nothing was stored."""

    code = ErrorCode.POLICY_REFUSED

    def __init__(self, refused: Refused) -> None:
        super().__init__(f"{refused.reason} (policy {refused.policy_version})")
        self.refused = refused


class PolicyService:
    """Decides by one policy, which stays the same as long as the process runs. `source`: where it came from."""

    def __init__(self, policy: Policy, *, source: str) -> None:
        self.policy = policy
        self.source = source

    def rule(self, work: Work, *, is_repair: bool = False) -> Ruling:
        """Return by which rule the work may run, or raise `RefusedByPolicy`; and what `check_planned` raises."""
        check_planned(work.work_type, is_repair=is_repair)
        answer = decide(self.policy, work)
        if isinstance(answer, Refused):
            raise RefusedByPolicy(answer)
        return answer

    def explain(self, work: Work) -> tuple[Ruling | Refused, list[Finding]]:
        """Return the decision, and what each rule up to it has to do with the work."""
        return decide(self.policy, work), explain(self.policy, work)


def check_planned(work_type: str, *, is_repair: bool) -> None:
    """Raise `InvalidField` for work that only a repair consists of, unless it belongs to one (`is_repair`)."""
    if work_type == COMPOSE_REPAIR and not is_repair:
        raise InvalidField("work_type", ONLY_PLANNED)


def open_policy(path: Path | None) -> PolicyService:
    """Read the policy in a file, or the built-in one; raises `InvalidPolicy`, which names every mistake."""
    if path is not None:
        return PolicyService(read_policy(path), source=str(path))
    text = files("orchestrator.policy").joinpath(DEFAULT_FILE).read_text(encoding="utf-8")
    return PolicyService(parse_policy(text, source=DEFAULT_FILE), source="built in")
