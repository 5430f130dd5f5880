"""Which agents a fan-out means, how many work at a time, and how it stands: pure decisions."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from uuid import UUID, uuid5

from common.errors import InvalidField
from common.lifecycle import Status
from common.messages import AgentStatus
from orchestrator.fan_outs.model import Pace, Selection, Selector, Skipped, Target
from orchestrator.placement.rules import has
from orchestrator.registry.model import Agent
from orchestrator.registry.rules import agents_meant, by_name
from orchestrator.tasks.dispatch import FAN_OUT

MOST_AGENTS = 1000
_PERCENT = re.compile(r"([0-9]{1,3})%")


def key_of(fan_out_id: UUID) -> str:
    """Return the concurrency key of a fan-out's tasks."""
    return f"{FAN_OUT}{fan_out_id}"


def id_for(fan_out_id: UUID, agent_id: UUID) -> UUID:
    """Return the id of the task of one agent: the same whenever the same fan-out is sent."""
    return uuid5(fan_out_id, str(agent_id))


def select(selector: Selector, agents: Sequence[Agent], *, agent_type: str, work_type: str) -> Selection:
    """Return the agents of a pool that get a task. Raises `InvalidField` when there are none, or a name means none.

    An agent that is named gets one also while it is offline; of those that labels mean, only those that are there.
    """
    pool = [agent for agent in agents if agent.agent_type == agent_type]
    if selector.agents is not None:
        known = by_name(pool)
        meant = [_named(name, known, agent_type) for name in dict.fromkeys(selector.agents)]
        skipped = []
    else:
        meant = [agent for agent in pool if all(has(agent.labels, *label) for label in selector.labels.items())]
        skipped = [Skipped(agent.name, "offline") for agent in meant if agent.status is AgentStatus.OFFLINE]
        meant = [agent for agent in meant if agent.status is not AgentStatus.OFFLINE]
    targets: dict[UUID, Target] = {}
    for agent in meant:
        if agent.work_types and work_type not in agent.work_types:
            skipped.append(Skipped(agent.name, f"offers no {work_type}"))
        else:
            targets[agent.agent_id] = Target(agent.agent_id, agent.name)
    if not targets:
        raise InvalidField("on", _nobody(agent_type, skipped))
    if len(targets) > MOST_AGENTS:
        raise InvalidField("on", f"means {len(targets)} agents; at most {MOST_AGENTS} get a task at once")
    return Selection(list(targets.values()), skipped)


def batch_of(pace: Pace, agents: int) -> int:
    """Return how many of so many agents work at a time. Raises `InvalidField` for a batch that is none."""
    match pace.batch:
        case None:
            return agents
        case str(text) if (percent := _PERCENT.fullmatch(text)) and 1 <= int(percent[1]) <= 100:
            return ceil(agents * int(percent[1]) / 100)
        case int(number) if 1 <= number <= MOST_AGENTS:
            return number
        case other:
            raise InvalidField("batch", f"must be from 1 to {MOST_AGENTS}, or from 1% to 100%, not {other!r}")


def status_of(statuses: Iterable[Status]) -> Status:
    """Return how a fan-out stands: failed if any task failed, cancelled if any was, once all have ended."""
    counts = Counter(statuses)
    for status in (Status.RUNNING, Status.PENDING, Status.AWAITING_APPROVAL):
        if counts[status]:
            begun = counts[Status.RUNNING] or sum(number for one, number in counts.items() if one.is_final)
            return Status.RUNNING if begun else status
    if counts[Status.FAILED]:
        return Status.FAILED
    return Status.CANCELLED if counts[Status.CANCELLED] else Status.COMPLETED


def _named(name: str, pool: Mapping[str, Sequence[Agent]], agent_type: str) -> Agent:
    found = agents_meant(name, pool)
    if len(found) == 1:
        return found[0]
    if found:
        meant = ", ".join(str(agent.agent_id) for agent in found)
        raise InvalidField("on.agents", f"{name!r} is the name of {len(found)} agents: {meant}; give an id")
    known = ", ".join(sorted({agent.name for agents in pool.values() for agent in agents})[:20]) or "none"
    raise InvalidField("on.agents", f"{name!r} is no agent of the pool {agent_type!r}; known: {known}")


def _nobody(agent_type: str, skipped: Sequence[Skipped]) -> str:
    why = "; ".join(f"{one.name}: {one.reason}" for one in skipped[:10])
    return f"means no agent of the pool {agent_type!r} that can run this now" + (f" ({why})" if why else "")
