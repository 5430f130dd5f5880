"""Which faults are made and when: decided by a seed, before anything starts."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

AGENTS = ("agent-1", "agent-2", "agent-3", "agent-4")
ORCHESTRATORS = ("orchestrator-1", "orchestrator-2")
# The agent that lives in a network of its own, where there are networks to be had.
NETWORK_AGENT = "agent-3"
# The agent that speaks to the first orchestrator over HTTP, and to no broker.
HTTP_AGENT = "agent-4"
# The orchestrator that speaks to PostgreSQL through a proxy.
PROXIED_ORCHESTRATOR = "orchestrator-2"


@dataclass(frozen=True, slots=True)
class Settings:
    """Every limit of the system under test, small so that much happens in little time."""

    lease_seconds: float = 6.0
    heartbeat_seconds: float = 1.0
    offline_after_seconds: float = 4.0
    kill_grace_seconds: float = 1.0
    slots: int = 4
    dispatches_per_second: float = 5.0
    longest_work_seconds: float = 15.0
    settle_seconds: float = 150.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to make: `at` seconds after the start, for `duration` seconds."""

    kind: str
    target: str
    at: float
    duration: float


@dataclass(frozen=True, slots=True)
class Kind:
    """Whom a fault can hit, and for how long it lasts. Faults with one resource never overlap."""

    targets: Sequence[str]
    shortest: float
    longest: float


def kinds(settings: Settings) -> Mapping[str, Kind]:
    """Return every fault that can be made."""
    past_the_lease = settings.lease_seconds + 1, settings.lease_seconds + 4
    links = {
        "link.cut": (0.0, 0.0),
        "link.refuse": (2.0, 6.0),
        "link.blackhole": (3.0, 12.0),
        "link.drop_to_broker": (3.0, 12.0),
        "link.drop_to_agent": (3.0, 12.0),
        "link.half_open": (3.0, 12.0),
        "link.stall": (2.0, 8.0),
        "link.delay": (3.0, 8.0),
        "link.slice": (3.0, 6.0),
    }
    return {
        "agent.kill": Kind(AGENTS, 0.2, 3.0),
        "agent.pause": Kind(AGENTS, *past_the_lease),
        "orchestrator.kill": Kind(ORCHESTRATORS, 0.2, 3.0),
        "orchestrator.pause": Kind(ORCHESTRATORS, *past_the_lease),
        "broker.stop_app": Kind(("broker",), 0.5, 4.0),
        "broker.kill": Kind(("broker",), 0.2, 3.0),
        "broker.close_connections": Kind(("broker",), 0.0, 0.0),
        "broker.poison": Kind(("broker",), 0.0, 0.0),
        "broker.disk_alarm": Kind(("broker",), 3.0, 9.0),
        "broker.memory_alarm": Kind(("broker",), 3.0, 9.0),
        "postgres.terminate_sessions": Kind(("postgres",), 0.0, 0.0),
        "postgres.crash": Kind(("postgres",), 0.2, 4.0),
        "postgres.commit_reply_lost": Kind((PROXIED_ORCHESTRATOR,), 2.0, 6.0),
        "network.partition": Kind((NETWORK_AGENT,), 3.0, 12.0),
        "network.partition_to_broker": Kind((NETWORK_AGENT,), 3.0, 12.0),
        "network.partition_to_agent": Kind((NETWORK_AGENT,), 3.0, 12.0),
        **{kind: Kind(AGENTS, *limits) for kind, limits in links.items()},
    }


def make_plan(seed: int, seconds: float, settings: Settings, *, without: Collection[str] = ()) -> list[Fault]:
    """Return the faults of a run. Every kind comes up before any comes up again; some begin while another lasts."""
    chance = random.Random(seed)
    known = {kind: what for kind, what in kinds(settings).items() if kind.split(".")[0] not in without}
    plan: list[Fault] = []
    deck: list[str] = []
    at = 3.0
    busy: dict[str, float] = {}
    while at < seconds:
        if not deck:
            deck = sorted(known)
            chance.shuffle(deck)
        kind = deck.pop()
        target = chance.choice(known[kind].targets)
        duration = chance.uniform(known[kind].shortest, known[kind].longest)
        start = max(at, busy.get(target, 0.0))
        if start + duration > seconds:
            break
        plan.append(Fault(kind, target, round(start, 3), round(duration, 3)))
        busy[target] = start + duration + 2.0
        overlapping = chance.random() < 0.25
        at = start + (chance.uniform(0.0, duration) if overlapping else duration + chance.uniform(3.0, 8.0))
    return sorted(plan, key=lambda fault: fault.at)
