"""Say of each agent whether it could take work now, and if not why: a pure decision over facts of one moment."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.placement.model import Aim
from orchestrator.placement.rules import unmet
from orchestrator.registry.model import MayWork
from orchestrator.registry.rules import off_by
from orchestrator.why.model import AgentFacts
from orchestrator.why.words import NOT_ASKING, by, noted, requirement, time_of


@dataclass(frozen=True, slots=True)
class AgentCapacity:
    """How many more tasks of some kind an agent could begin now; without `reasons` it could begin one."""

    agent: AgentFacts
    free_slots: int
    reasons: Sequence[str]


def capacity_of(agents: Sequence[AgentFacts], aim: Aim, work_type: str | None) -> list[AgentCapacity]:
    """Return the capacity of agents for work that aims so: those that could take it first, the most room first."""
    found = [
        AgentCapacity(agent, _free_slots(agent), list(_reasons(agent, aim, work_type)))
        for agent in agents
        if agent.may_work is not MayWork.SHUT_OUT
    ]
    return sorted(found, key=lambda one: (len(one.reasons), -one.free_slots, one.agent.name, one.agent.agent_id))


def _free_slots(agent: AgentFacts) -> int:
    if not agent.online:
        return 0
    # After a series of failures one task may try.
    return min(1, agent.free_slots) if agent.may_work is MayWork.TRIAL else agent.free_slots


def _reasons(agent: AgentFacts, aim: Aim, work_type: str | None) -> Iterator[str]:
    if not agent.online:
        yield f"offline: last heard of at {time_of(agent.last_heartbeat_at)}"
    if work_type is not None and not agent.takes(work_type):
        yield f"offers no {work_type}"
    for name in unmet(aim, agent.labels):
        has = f"has {name} = {agent.labels[name]}" if name in agent.labels else f"has no {name}"
        yield f"{has}, wanted: {requirement(name, aim.requires[name])}"
    if agent.draining:
        yield f"draining{by(agent.drained_by)}{noted(agent.drain_note)}"
    if agent.paused_until is not None:
        yield f"paused{by(agent.paused_by)} until {time_of(agent.paused_until)}{noted(agent.pause_note)}"
    if agent.clock_off_by is not None:
        yield f"its clock is {off_by(agent.clock_off_by)} the orchestrator's"
    if agent.tripped_until is not None:
        yield f"failed too often in a row, gets nothing until {time_of(agent.tripped_until)}"
    if agent.online and agent.running >= agent.slots:
        yield f"runs {agent.running} of {agent.slots}"
    elif agent.online and agent.free_slots == 0:
        yield NOT_ASKING
