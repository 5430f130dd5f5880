"""Short pieces of the sentences that explain why a task waits."""

from datetime import UTC, datetime

from orchestrator.why.model import AgentFacts


def name_of(agent: AgentFacts) -> str:
    return f"{agent.hostname} ({agent.agent_id})"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def by(name: str | None) -> str:
    return f" by {name}" if name else ""


def noted(note: str | None) -> str:
    return f" ({note})" if note else ""


def time_of(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
