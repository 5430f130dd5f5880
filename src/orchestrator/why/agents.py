"""Say which agents cannot take a task, and why: a pure decision over facts of one moment."""

from collections.abc import Iterable, Iterator, Sequence

from common.rest.why import BlockerKind
from orchestrator.placement.model import Aim
from orchestrator.placement.rules import suits, unmet
from orchestrator.registry.model import MayWork
from orchestrator.registry.rules import off_by
from orchestrator.tasks.model import Task
from orchestrator.why.model import SHOWN, AgentFacts, AgentRef, Blocker, Facts
from orchestrator.why.words import NOT_ASKING, by, counted, name_of, noted, requirement, time_of


def agents_in_the_way(facts: Facts) -> Iterator[Blocker]:
    online = _online(facts.agents)
    if not online:
        yield _nobody(facts)
        return
    offering = [agent for agent in online if agent.takes(facts.task.work_type)]
    if not offering:
        yield _not_offered(facts.task, online)
        return
    online = offering
    if facts.aim is not None:
        suitable = [agent for agent in online if suits(facts.aim, agent.agent_id, agent.labels)]
        if not suitable:
            yield _nobody_suits(facts.aim, online, facts.agents)
            return
        online = suitable
    able = [agent for agent in online if not _is_held_back(agent)]
    if any(agent.free_slots for agent in able):
        return
    full = [agent for agent in able if agent.running >= agent.slots]
    if full and facts.task.admitted:
        yield _all_busy(full)
    yield from (_not_asking(agent) for agent in able[:SHOWN] if agent.running < agent.slots)
    held_back = [agent for agent in online if _is_held_back(agent)][:SHOWN]
    yield from (_paused(agent) for agent in held_back if agent.paused_until is not None)
    yield from (_draining(agent) for agent in held_back if agent.draining)
    yield from (_clock_off(agent) for agent in held_back if agent.clock_off_by is not None)
    yield from (_tripped(agent) for agent in held_back if agent.tripped_until is not None)


def _online(agents: Iterable[AgentFacts]) -> list[AgentFacts]:
    """Return the agents that are there; one whose identity was disabled is gone for good."""
    return [agent for agent in agents if agent.online and agent.may_work is not MayWork.SHUT_OUT]


def offered(agents: Iterable[AgentFacts]) -> frozenset[str] | None:
    """Return the types of work that agents take now; None for any, also while there is no agent."""
    able = [agent for agent in _online(agents) if not _is_held_back(agent)]
    if not able or any(not agent.work_types for agent in able):
        return None
    return frozenset().union(*(agent.work_types for agent in able))


def is_set_aside(facts: Facts) -> bool:
    """Return whether no agent takes such work, so that the task holds up no other."""
    types = offered(facts.agents)
    return types is not None and facts.task.work_type not in types


def _is_held_back(agent: AgentFacts) -> bool:
    return agent.draining or agent.may_work not in (MayWork.FREE, MayWork.TRIAL)


def _nobody(facts: Facts) -> Blocker:
    kind = facts.task.agent_type
    if not facts.agents:
        return Blocker(BlockerKind.NO_AGENT, f"No agent of the type {kind!r} has ever registered.", agents=[])
    offline = sorted(facts.agents, key=lambda agent: agent.last_heartbeat_at, reverse=True)[:SHOWN]
    named = "; ".join(f"{name_of(agent)} was last heard of at {time_of(agent.last_heartbeat_at)}" for agent in offline)
    refs = [AgentRef(agent.agent_id, agent.hostname, since=agent.last_heartbeat_at) for agent in offline]
    return Blocker(BlockerKind.NO_AGENT, f"No agent of the type {kind!r} is online: {named}.", agents=refs)


def _not_offered(task: Task, online: Sequence[AgentFacts]) -> Blocker:
    shown = online[:SHOWN]
    named = "; ".join(f"{name_of(agent)} offers {', '.join(agent.work_types)}" for agent in shown)
    refs = [AgentRef(agent.agent_id, agent.hostname) for agent in shown]
    message = (
        f"No agent of the type {task.agent_type!r} that is online offers {task.work_type!r}: {named}. "
        "The task is set aside until an agent offers it."
    )
    return Blocker(BlockerKind.NOT_OFFERED, message, agents=refs)


def _nobody_suits(aim: Aim, online: Sequence[AgentFacts], known: Sequence[AgentFacts]) -> Blocker:
    """Name the agent that is wanted and away, or what each agent lacks, those first that lack the least."""
    if aim.agent_id is not None and all(agent.agent_id != aim.agent_id for agent in online):
        there = next((agent for agent in known if agent.agent_id == aim.agent_id), None)
        if there is None:
            return Blocker(BlockerKind.NO_SUITABLE_AGENT, f"No agent {aim.agent_id} has ever registered.", agents=[])
        message = f"It is for {name_of(there)}, which was last heard of at {time_of(there.last_heartbeat_at)}."
        return Blocker(BlockerKind.NO_SUITABLE_AGENT, message, agents=[AgentRef(there.agent_id, there.hostname)])
    near = [agent for agent in online if aim.agent_id in (None, agent.agent_id)]
    near.sort(key=lambda agent: len(unmet(aim, agent.labels)))
    named = "; ".join(f"{name_of(agent)} {_lacks(aim, agent)}" for agent in near[:SHOWN])
    refs = [AgentRef(agent.agent_id, agent.hostname) for agent in near[:SHOWN]]
    wanted = ", ".join(requirement(name, value) for name, value in aim.requires.items())
    message = f"No agent of the type {aim.agent_type!r} that is online has {wanted}: {named}."
    return Blocker(BlockerKind.NO_SUITABLE_AGENT, message, agents=refs)


def _lacks(aim: Aim, agent: AgentFacts) -> str:
    lacking = unmet(aim, agent.labels)
    return "; ".join(
        f"has {name} = {agent.labels[name]}" if name in agent.labels else f"has no {name}" for name in lacking
    )


def _all_busy(able: Sequence[AgentFacts]) -> Blocker:
    slots, shown = sum(agent.slots for agent in able), able[:SHOWN]
    named = "; ".join(f"{name_of(agent)} runs {agent.running} of {agent.slots}" for agent in shown)
    refs = [AgentRef(agent.agent_id, agent.hostname, agent.running, agent.slots) for agent in shown]
    return Blocker(BlockerKind.SLOTS_BUSY, f"All {counted(slots, 'slot')} are taken: {named}.", agents=refs)


def _not_asking(agent: AgentFacts) -> Blocker:
    return Blocker(
        BlockerKind.AGENT_NOT_ASKING,
        f"{name_of(agent)} {NOT_ASKING}.",
        agents=[AgentRef(agent.agent_id, agent.hostname, agent.running, agent.slots)],
    )


def _paused(agent: AgentFacts) -> Blocker:
    assert agent.paused_until is not None
    until = time_of(agent.paused_until)
    return Blocker(
        BlockerKind.AGENT_PAUSED,
        f"{name_of(agent)} is paused{by(agent.paused_by)} until {until}{noted(agent.pause_note)}.",
        at=agent.paused_until,
        by=agent.paused_by,
        note=agent.pause_note or None,
        agents=[AgentRef(agent.agent_id, agent.hostname)],
    )


def _draining(agent: AgentFacts) -> Blocker:
    return Blocker(
        BlockerKind.AGENT_DRAINING,
        f"{name_of(agent)} takes nothing new: it is drained{by(agent.drained_by)}{noted(agent.drain_note)}.",
        by=agent.drained_by,
        note=agent.drain_note or None,
        agents=[AgentRef(agent.agent_id, agent.hostname)],
    )


def _clock_off(agent: AgentFacts) -> Blocker:
    assert agent.clock_off_by is not None
    difference = off_by(agent.clock_off_by)
    return Blocker(
        BlockerKind.AGENT_CLOCK_OFF,
        f"The clock of {name_of(agent)} is {difference} the orchestrator's, so it gets nothing until it is set.",
        agents=[AgentRef(agent.agent_id, agent.hostname)],
    )


def _tripped(agent: AgentFacts) -> Blocker:
    assert agent.tripped_until is not None
    because = f": {agent.trip_reason.rstrip('.')}" if agent.trip_reason else ""
    return Blocker(
        BlockerKind.AGENT_TRIPPED,
        f"{name_of(agent)} failed too often in a row and gets nothing until {time_of(agent.tripped_until)}{because}.",
        at=agent.tripped_until,
        agents=[AgentRef(agent.agent_id, agent.hostname)],
    )
