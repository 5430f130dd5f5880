"""Short pieces of the sentences that explain why a task waits."""

from datetime import UTC, datetime
from typing import Any

from orchestrator.why.model import AgentFacts

NOT_ASKING = "takes no work just now: it starts, or work that was sent to it has not arrived"


def name_of(agent: AgentFacts) -> str:
    return f"{agent.name} ({agent.agent_id})"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def by(name: str | None) -> str:
    return f" by {name}" if name else ""


def noted(note: str | None) -> str:
    return f" ({note})" if note else ""


def time_of(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def requirement(name: str, value: Any) -> str:
    """Say what of a label is wanted."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{name} {'>=' if is_number else '='} {value}"
