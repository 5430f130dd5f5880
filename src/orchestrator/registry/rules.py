"""Who may have work: pauses, drains, and the circuit breaker. Pure decisions.

The breaker counts failures that are the agent's or its host's fault, one after another. After `failures` of them the
agent is *tripped*: it gets no work for `pause`. Then it may try one task; if that fails too it is tripped again at
once, and any result that is the work's own begins the count anew. What an agent refuses because of the work says
nothing of its host, and whoever dispatches could cause it: it neither counts nor begins anything anew.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from common.errors import ErrorCode
from common.labels import AUTHORITY, labels_of
from common.messages import AgentStatus, StatusUpdate
from common.orders import Drain, Pause
from orchestrator.registry.model import Agent, Known, MayWork, Standing
from orchestrator.settings import STANDARD

INFRASTRUCTURE = frozenset({ErrorCode.AGENT_UNAVAILABLE, ErrorCode.RESOURCE_LIMIT})
# With these an agent refuses work because of its host: no disk, no process, no sandbox; a clock that is off, or keys
# that it does not know, so that no signature is valid. All other refusals are about the work.
OF_THE_HOST = frozenset({ErrorCode.RESOURCE_LIMIT, ErrorCode.AUTHENTICATION_FAILED})
LEAVING = frozenset({AgentStatus.DRAINING, AgentStatus.OFFLINE})
# What the column holds; the count has no meaning beyond the limit.
MOST_COUNTED = 1000
SHUT_OUT = "the agent's identity was disabled"
# An agent that was shut out may ask so often, in case it does not believe it.
SHUT_OUT_PAUSE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """How many failures in a row trip an agent, and for how long."""

    failures: int = STANDARD.breaker_failures
    pause: timedelta = STANDARD.breaker_pause


def may_work(standing: Standing | None, *, now: datetime) -> MayWork:
    """Return whether an agent may be given work, and what holds it back first if not.

    This is the only such rule; SQL has it as the function `agent_may_work`. TRIAL is one task, after which the circuit
    breaker decides.
    """
    if standing is None:
        return MayWork.UNREGISTERED
    if standing.shut_out:
        return MayWork.SHUT_OUT
    if standing.draining:
        return MayWork.DRAINING
    if standing.paused_until is not None and standing.paused_until > now:
        return MayWork.PAUSED
    if standing.clock_off_by is not None:
        return MayWork.CLOCK_OFF
    if standing.tripped_until is not None:
        return MayWork.TRIPPED if standing.tripped_until > now else MayWork.TRIAL
    return MayWork.FREE


def contradiction(
    name: str, known: Known | None, *, agent_type: str | None = None, labels: Mapping[str, Any] | None = None
) -> str | None:
    """Return what an agent of that name says of itself that the ledger knows otherwise; None when all of it fits.

    `agent_type` is the pool that it names. A list may differ from a pinned one: `believed_labels` compares them.
    """
    if known is None:
        return None
    if agent_type not in (None, known.agent_type):
        return f"agent {name} belongs to the pool {known.agent_type!r}, and names the pool {agent_type!r}"
    for label, value in (known.pinned or {}).items():
        said = (labels or {}).get(label, value)
        if not isinstance(value, list) and (type(said), said) != (type(value), value):
            return f"the label {label} of agent {name} was pinned to {value!r}, and it names {said!r}"
    return None


def believed_labels(said: Mapping[str, Any], pinned: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the labels that an agent has: what it says, within what was pinned.

    A pinned label is as it was pinned; of a pinned list those that the agent says, too, for a host can lose what it
    had. Labels that carry authority an enrolled agent has only where they were pinned.
    """
    if pinned is None:
        return dict(said)
    own = {name: value for name, value in said.items() if name not in AUTHORITY}
    return own | {
        name: [one for one in value if one in _listed(said.get(name, []))] if isinstance(value, list) else value
        for name, value in pinned.items()
    }


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def labels_of_agent(update: StatusUpdate, known: Known | None) -> dict[str, Any]:
    """Return the labels that an agent has, and what its host measures, so that work can ask for it.

    A number that work asks for means at least as much; so the load counts as the cores that it leaves idle.
    """
    host = update.resources
    idle = None if host.cores is None or host.load is None else round(max(0.0, host.cores - host.load), 2)
    measured = {
        "cores": host.cores,
        "idle_cores": idle,
        "memory_free_gb": host.memory_free_gb,
        "gpu_vram_total_gb": host.gpu_vram_total_gb,
        "gpu_vram_available_gb": host.gpu_vram_available_gb,
    }
    said = {**{name: value for name, value in measured.items() if value is not None}, **labels_of(update.labels)}
    return believed_labels(said, None if known is None else known.pinned)


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
            last = f", the last: {standing.trip_reason}" if standing.trip_reason else ""
            return Pause(until=max(ends), note=f"too many failures in a row{last}")
        case MayWork.FREE | MayWork.TRIAL | MayWork.CLOCK_OFF | MayWork.UNREGISTERED:
            # An agent compares its clock itself, with each answer to a heartbeat.
            return None


def off_by(difference: timedelta) -> str:
    """Say how far a clock differs, to be followed by whose clock it is compared with."""
    seconds = difference.total_seconds()
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'}"


def second_process(standing: Standing | None, *, boot_id: UUID | None, sent_at: datetime | None) -> UUID | None:
    """Return the process of an agent that has to leave after this heartbeat; None when only one runs.

    A restarted agent speaks with a new boot id, and the old one is never heard again. A heartbeat that the earlier
    process sent after the later one had started shows that both run.
    """
    if standing is None or boot_id is None or sent_at is None:
        return None
    if boot_id == standing.boot_refused:
        return boot_id
    if boot_id == standing.boot_before and sent_at > standing.started_at:
        return standing.boot_id
    return None


def is_replaced(standing: Standing | None, *, boot_id: UUID | None) -> bool:
    """Return whether a heartbeat is that of the process before the one whose word counts."""
    return standing is not None and boot_id is not None and boot_id == standing.boot_before


def is_infrastructure(error_code: int | None) -> bool:
    """Say whether a failure is that of an agent or its host, not the work's own."""
    return error_code in INFRASTRUCTURE


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, as far as it tells of its agent.

    `lost`: nobody heard of its end. `untried`: nothing of it ran, for no fault of the host, so that nothing was shown.
    """

    infrastructure: bool
    lost: bool = False
    untried: bool = False
    reason: str | None = None


def agent_outcome(outcome: str, error_code: int | None, *, counts: bool, reason: str | None = None) -> Outcome | None:
    """Return what the end of an attempt tells of its agent; None when it tells nothing.

    `counts`: something of it ran.
    """
    match outcome:
        case "lost":
            return Outcome(infrastructure=True, lost=True, reason=reason)
        case "completed":
            return Outcome(infrastructure=False)
        case "failed" if not counts and error_code not in OF_THE_HOST:
            return Outcome(infrastructure=False, untried=True)
        case "failed":
            return Outcome(infrastructure=not counts or is_infrastructure(error_code), reason=reason)
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Count:
    """The state of a breaker after some outcomes. `tripped`: they tripped it; `reason` is that of the last."""

    failures: int
    until: datetime | None
    tripped: bool
    reason: str | None = None


def count_outcomes(standing: Standing, outcomes: Sequence[Outcome], *, now: datetime, policy: BreakerPolicy) -> Count:
    """Count the outcomes of an agent's attempts, in their order."""
    failures, until, tripped = standing.failures_in_row, standing.tripped_until, False
    reason = standing.trip_reason
    for outcome in outcomes:
        if outcome.untried:
            # If that was the one task after a trip, another may be it at once.
            until = None if until is None else min(until, now)
        elif not outcome.infrastructure:
            failures, until, tripped, reason = 0, None, False, None
        elif outcome.lost or standing.status not in LEAVING:
            # What an agent that says it leaves could not finish is no failure of it.
            failures, reason = min(failures + 1, MOST_COUNTED), outcome.reason
            if failures >= policy.failures:
                until, tripped = now + policy.pause, True
    return Count(failures, until, tripped, reason)


def by_name(agents: Iterable[Agent]) -> Mapping[str, Sequence[Agent]]:
    """Return agents by their names and by their ids."""
    known: dict[str, list[Agent]] = defaultdict(list)
    for agent in agents:
        for name in {agent.name, str(agent.agent_id)}:
            known[name].append(agent)
    return known


def agents_meant(name: str, known: Mapping[str, Sequence[Agent]]) -> Sequence[Agent]:
    """Return the agents that a name or an id means, of those of `by_name`: of several, those that are not offline.

    A container that is made anew enrols as another agent of the same name, beside the one that went.
    """
    found = known.get(name, ())
    return [agent for agent in found if agent.status is not AgentStatus.OFFLINE] or found
