"""Who may have work: pauses, drains, and the circuit breaker. Pure decisions.

The breaker counts failures that are the agent's or its host's fault, one after another. After `failures` of them the
agent is *tripped*: it gets no work for `pause`. Then it may try one task; if that fails too it is tripped again at
once, and any result that is the work's own begins the count anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from common.errors import ErrorCode
from common.labels import labels_of
from common.messages import AgentStatus, StatusUpdate
from common.orders import Drain, Pause
from orchestrator.registry.model import Standing

INFRASTRUCTURE = frozenset({ErrorCode.AGENT_UNAVAILABLE, ErrorCode.RESOURCE_LIMIT})
LEAVING = frozenset({AgentStatus.DRAINING, AgentStatus.OFFLINE})
# What the column holds; the count has no meaning beyond the limit.
MOST_COUNTED = 1000
SHUT_OUT = "the agent's identity was disabled"
# An agent that was shut out may ask so often, in case it does not believe it.
SHUT_OUT_PAUSE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """How many failures in a row trip an agent, and for how long."""

    failures: int = 5
    pause: timedelta = timedelta(seconds=60)


STANDARD = BreakerPolicy()


@dataclass(frozen=True, slots=True)
class Free:
    """The agent may have work."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The agent was tripped; it may have one task, to show that it is well again."""


@dataclass(frozen=True, slots=True)
class Barred:
    """The agent gets no work. `order` says so to the agent, which would ask again otherwise."""

    reason: str
    order: Pause | Drain


def judge_standing(standing: Standing | None, *, now: datetime) -> Free | Trial | Barred:
    """Say whether an agent may have work; one that has not registered yet may."""
    if standing is None:
        return Free()
    order = standing_order(standing, now=now)
    if order is not None and standing.shut_out:
        return Barred(SHUT_OUT, order)
    if isinstance(order, Drain):
        return Barred(_because("the agent is draining", standing.drain_note), order)
    if order is not None:
        return Barred(_pause_reason(standing, now=now), order)
    return Free() if standing.tripped_until is None else Trial()


def labels_with_resources(update: StatusUpdate) -> dict[str, Any]:
    """Return what an agent says that it has, and what its host measures: free GPU memory can be asked for, too."""
    measured = {
        "gpu_vram_total_gb": update.resources.gpu_vram_total_gb,
        "gpu_vram_available_gb": update.resources.gpu_vram_available_gb,
    }
    return {**{name: value for name, value in measured.items() if value is not None}, **labels_of(update.labels)}


def standing_order(standing: Standing, *, now: datetime) -> Pause | Drain | None:
    """Return what an agent must be told to do, as it stands; None when it may work."""
    if standing.shut_out:
        return Pause(until=now + SHUT_OUT_PAUSE, note=SHUT_OUT)
    if standing.draining:
        return Drain(started_at=standing.started_at, note=standing.drain_note or "")
    ends = [until for until in (standing.paused_until, standing.tripped_until) if until is not None and until > now]
    if not ends:
        return None
    paused = standing.paused_until is not None and standing.paused_until > now
    return Pause(until=max(ends), note=(standing.pause_note or "") if paused else "too many failures in a row")


def _pause_reason(standing: Standing, *, now: datetime) -> str:
    if standing.paused_until is not None and standing.paused_until > now:
        until = standing.paused_until.isoformat(timespec="seconds")
        return _because(f"the agent is paused until {until} by {standing.paused_by}", standing.pause_note)
    assert standing.tripped_until is not None
    until = standing.tripped_until.isoformat(timespec="seconds")
    return f"the agent failed {standing.failures_in_row} times in a row and gets no work until {until}"


def _because(text: str, note: str | None) -> str:
    return f"{text}: {note}" if note else text


def is_infrastructure(error_code: int | None) -> bool:
    """Say whether a failure is that of an agent or its host, not the work's own."""
    return error_code in INFRASTRUCTURE


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, as far as it tells of its agent. `lost`: nobody heard of its end."""

    infrastructure: bool
    lost: bool = False


def agent_outcome(outcome: str, error_code: int | None, *, counts: bool) -> Outcome | None:
    """Return what the end of an attempt tells of its agent; None when it tells nothing."""
    match outcome:
        case "lost":
            return Outcome(infrastructure=True, lost=True)
        case "completed":
            return Outcome(infrastructure=False)
        case "failed" if not counts and error_code == ErrorCode.AGENT_UNAVAILABLE:
            # A grant that came too late was handed back in good order.
            return None
        case "failed":
            return Outcome(infrastructure=is_infrastructure(error_code))
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Count:
    """What the breaker holds after some outcomes. `tripped` says that they tripped it."""

    failures: int
    until: datetime | None
    tripped: bool


def count_outcomes(standing: Standing, outcomes: Sequence[Outcome], *, now: datetime, policy: BreakerPolicy) -> Count:
    """Count the outcomes of an agent's attempts, in their order."""
    failures, until, tripped = standing.failures_in_row, standing.tripped_until, False
    for outcome in outcomes:
        if not outcome.infrastructure:
            failures, until, tripped = 0, None, False
        elif outcome.lost or standing.status not in LEAVING:
            # What an agent that says it leaves could not finish is no failure of it.
            failures = min(failures + 1, MOST_COUNTED)
            if failures >= policy.failures:
                until, tripped = now + policy.pause, True
    return Count(failures, until, tripped)
