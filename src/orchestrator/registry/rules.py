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
from orchestrator.registry.model import MayWork, Standing

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


def may_work(standing: Standing | None, *, now: datetime) -> MayWork:
    """Return whether an agent may be given work, and what holds it back first if not.

    This is the only such rule; SQL has it as the function `agent_may_work`. An agent that has not registered yet is
    free; TRIAL is one task, after which the circuit breaker decides.
    """
    if standing is None:
        return MayWork.FREE
    if standing.shut_out:
        return MayWork.SHUT_OUT
    if standing.draining:
        return MayWork.DRAINING
    if standing.paused_until is not None and standing.paused_until > now:
        return MayWork.PAUSED
    if standing.tripped_until is not None:
        return MayWork.TRIPPED if standing.tripped_until > now else MayWork.TRIAL
    return MayWork.FREE


def judge_standing(standing: Standing | None, *, now: datetime) -> Free | Trial | Barred:
    """Return whether an agent gets work, with the reason and the order for one that gets none."""
    verdict = may_work(standing, now=now)
    if standing is None or verdict is MayWork.FREE:
        return Free()
    if verdict is MayWork.TRIAL:
        return Trial()
    order = standing_order(standing, now=now)
    assert order is not None
    return Barred(_reason(standing, verdict), order)


def labels_with_resources(update: StatusUpdate) -> dict[str, Any]:
    """Return what an agent says that it has, and what its host measures: free GPU memory can be asked for, too."""
    measured = {
        "gpu_vram_total_gb": update.resources.gpu_vram_total_gb,
        "gpu_vram_available_gb": update.resources.gpu_vram_available_gb,
    }
    return {**{name: value for name, value in measured.items() if value is not None}, **labels_of(update.labels)}


def standing_order(standing: Standing, *, now: datetime) -> Pause | Drain | None:
    """Return what an agent must be told to do, as it stands; None when it may work."""
    ends = [until for until in (standing.paused_until, standing.tripped_until) if until is not None and until > now]
    match may_work(standing, now=now):
        case MayWork.SHUT_OUT:
            return Pause(until=now + SHUT_OUT_PAUSE, note=SHUT_OUT)
        case MayWork.DRAINING:
            return Drain(started_at=standing.started_at, note=standing.drain_note or "")
        case MayWork.PAUSED:
            return Pause(until=max(ends), note=standing.pause_note or "")
        case MayWork.TRIPPED:
            return Pause(until=max(ends), note="too many failures in a row")
        case MayWork.FREE | MayWork.TRIAL:
            return None


def _reason(standing: Standing, verdict: MayWork) -> str:
    if verdict is MayWork.SHUT_OUT:
        return SHUT_OUT
    if verdict is MayWork.DRAINING:
        return _because("the agent is draining", standing.drain_note)
    if verdict is MayWork.PAUSED:
        assert standing.paused_until is not None
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
