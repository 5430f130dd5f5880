"""Why a task waits: a pure decision over facts of one moment."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from common.lifecycle import Status
from orchestrator.placement.model import Aim
from orchestrator.placement.rules import suits, unmet
from orchestrator.registry.model import MayWork
from orchestrator.tasks.model import Task
from orchestrator.why.model import AgentFacts, AgentRef, Blocker, BlockerKind, Explanation, Facts

# An answer names at most so many agents or tasks of a kind; its numbers are exact all the same.
SHOWN = 20


def explain(facts: Facts) -> Explanation:
    """Say whether a task waits, and everything that is in its way now, always in the order of `BlockerKind`."""
    task = facts.task
    if task.status.is_final:
        return Explanation(task.task_id, task.status, waiting=False, blockers=[_ended(task)])
    if task.status is Status.RUNNING:
        return Explanation(task.task_id, task.status, waiting=False, blockers=[_running(task, facts.agents)])
    blockers = [
        *_approval(facts),
        *_order(facts),
        *_limit(facts),
        *_retry(facts),
        *_delivery(facts),
        *_agents(facts),
        *_queue(facts),
        *_expiry(facts),
    ]
    return Explanation(task.task_id, task.status, waiting=True, blockers=blockers)


def _ended(task: Task) -> Blocker:
    because = f": {task.error_message}" if task.error_message else ""
    at = "" if task.finished_at is None else f" since {_time(task.finished_at)}"
    return Blocker(BlockerKind.ENDED, f"It does not wait: it is {task.status}{at}{because}.", at=task.finished_at)


def _running(task: Task, agents: Iterable[AgentFacts]) -> Blocker:
    known = next((agent for agent in agents if agent.agent_id == task.agent_id), None)
    who = f"{known.hostname} ({known.agent_id})" if known is not None else f"agent {task.agent_id}"
    since = "" if task.started_at is None else f" since {_time(task.started_at)}"
    refs = [AgentRef(known.agent_id, known.hostname, since=task.started_at)] if known is not None else None
    return Blocker(BlockerKind.RUNNING, f"It does not wait: {who} runs it{since}.", at=task.started_at, agents=refs)


def _approval(facts: Facts) -> Iterator[Blocker]:
    if facts.task.status is not Status.AWAITING_APPROVAL:
        return
    asked = facts.approval
    if asked is None:
        yield Blocker(BlockerKind.AWAITING_APPROVAL, "It waits until somebody approves it.")
        return
    yield Blocker(
        BlockerKind.AWAITING_APPROVAL,
        f"It awaits approval {asked.approval_id}: {asked.yes} of {asked.approvers} by {' or '.join(asked.roles)}, "
        f"until {_time(asked.expires_at)}.",
        at=asked.expires_at,
        limit=asked.approvers,
    )


def _order(facts: Facts) -> Iterator[Blocker]:
    order, key = facts.order, facts.task.ordering_key
    if order is None or order.ahead == 0 or order.first is None:
        return
    yield Blocker(
        BlockerKind.ORDERING_KEY,
        f"It waits behind {_count(order.ahead, 'task')} of the ordering key {key!r}; "
        f"the first of them is {order.first}, which {_standing(order.first_status)}.",
        key=key,
        ahead=order.ahead,
        task_ids=[order.first],
    )


def _standing(status: Status | None) -> str:
    """Say how the first of an ordering key stands; a cancelled one is in the way while its agent stops it."""
    return "is cancelled and being stopped" if status is Status.CANCELLED else f"is {status}"


def _limit(facts: Facts) -> Iterator[Blocker]:
    limit, key = facts.limit, facts.task.concurrency_key
    if limit is None or facts.task.admitted or len(limit.on_the_way) < limit.limit:
        return
    yield Blocker(
        BlockerKind.CONCURRENCY_KEY,
        f"At most {limit.limit} of the concurrency key {key!r} may run: {len(limit.on_the_way)} run, stop or are on "
        f"their way, and {limit.ahead} of those that wait {'goes' if limit.ahead == 1 else 'go'} before it.",
        key=key,
        limit=limit.limit,
        ahead=limit.ahead,
        task_ids=list(limit.on_the_way[:SHOWN]),
    )


def _retry(facts: Facts) -> Iterator[Blocker]:
    task, ticket = facts.task, facts.ticket
    if ticket is None or not _is_retry(facts):
        return
    because = f", after: {task.error_message}" if task.error_message else ""
    yield Blocker(
        BlockerKind.RETRY_DUE,
        f"Start {task.starts + 1} of at most {task.max_attempts} is due at {_time(ticket.due_at)}{because}.",
        at=ticket.due_at,
    )


def _is_retry(facts: Facts) -> bool:
    ticket = facts.ticket
    return ticket is not None and ticket.published_at is None and ticket.due_at > facts.now and facts.task.attempt > 0


def _delivery(facts: Facts) -> Iterator[Blocker]:
    if facts.broker_failure is not None:
        yield Blocker(BlockerKind.BROKER_DOWN, f"The broker cannot be used: {facts.broker_failure}")
    elif facts.relay_failure is not None:
        yield Blocker(BlockerKind.RELAY_FAILING, f"Tickets cannot be published right now: {facts.relay_failure}")


def _agents(facts: Facts) -> Iterator[Blocker]:
    online = _online(facts.agents)
    if not online:
        yield _nobody(facts)
        return
    offering = [agent for agent in online if agent.offers(facts.task.work_type)]
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
    if any(agent.running < agent.slots for agent in able):
        return
    if able and facts.task.admitted:
        yield _all_busy(able)
    held_back = [agent for agent in online if _is_held_back(agent)][:SHOWN]
    yield from (_paused(agent) for agent in held_back if agent.paused_until is not None)
    yield from (_draining(agent) for agent in held_back if agent.draining)
    yield from (_tripped(agent) for agent in held_back if agent.tripped_until is not None)


def _online(agents: Iterable[AgentFacts]) -> list[AgentFacts]:
    """Return the agents that are there; one whose identity was disabled is gone for good."""
    return [agent for agent in agents if agent.online and agent.may_work is not MayWork.SHUT_OUT]


def offered(agents: Iterable[AgentFacts]) -> set[str] | None:
    """Return the work types whose tickets can go now; None when any can."""
    able = [agent for agent in _online(agents) if not _is_held_back(agent)]
    if not able or any(not agent.work_types for agent in able):
        return None
    return {work_type for agent in able for work_type in agent.work_types}


def _is_set_aside(facts: Facts) -> bool:
    work_types = offered(facts.agents)
    return work_types is not None and facts.task.work_type not in work_types


def _is_held_back(agent: AgentFacts) -> bool:
    return agent.draining or agent.may_work not in (MayWork.FREE, MayWork.TRIAL)


def _nobody(facts: Facts) -> Blocker:
    kind = facts.task.agent_type
    if not facts.agents:
        return Blocker(BlockerKind.NO_AGENT, f"No agent of the type {kind!r} has ever registered.", agents=[])
    offline = sorted(facts.agents, key=lambda agent: agent.last_heartbeat_at, reverse=True)[:SHOWN]
    named = "; ".join(f"{_name(agent)} was last heard of at {_time(agent.last_heartbeat_at)}" for agent in offline)
    refs = [AgentRef(agent.agent_id, agent.hostname, since=agent.last_heartbeat_at) for agent in offline]
    return Blocker(BlockerKind.NO_AGENT, f"No agent of the type {kind!r} is online: {named}.", agents=refs)


def _not_offered(task: Task, online: Sequence[AgentFacts]) -> Blocker:
    shown = online[:SHOWN]
    named = "; ".join(f"{_name(agent)} offers {', '.join(agent.work_types)}" for agent in shown)
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
        message = f"It is for {_name(there)}, which was last heard of at {_time(there.last_heartbeat_at)}."
        return Blocker(BlockerKind.NO_SUITABLE_AGENT, message, agents=[AgentRef(there.agent_id, there.hostname)])
    near = [agent for agent in online if aim.agent_id in (None, agent.agent_id)]
    near.sort(key=lambda agent: len(unmet(aim, agent.labels)))
    named = "; ".join(f"{_name(agent)} {_lacks(aim, agent)}" for agent in near[:SHOWN])
    refs = [AgentRef(agent.agent_id, agent.hostname) for agent in near[:SHOWN]]
    wanted = ", ".join(_requirement(name, value) for name, value in aim.requires.items())
    message = f"No agent of the type {aim.agent_type!r} that is online has {wanted}: {named}."
    return Blocker(BlockerKind.NO_SUITABLE_AGENT, message, agents=refs)


def _lacks(aim: Aim, agent: AgentFacts) -> str:
    lacking = unmet(aim, agent.labels)
    return "; ".join(
        f"has {name} = {agent.labels[name]}" if name in agent.labels else f"has no {name}" for name in lacking
    )


def _requirement(name: str, value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{name} {'>=' if is_number else '='} {value}"


def _all_busy(able: Sequence[AgentFacts]) -> Blocker:
    slots, shown = sum(agent.slots for agent in able), able[:SHOWN]
    named = "; ".join(f"{_name(agent)} runs {agent.running} of {agent.slots}" for agent in shown)
    refs = [AgentRef(agent.agent_id, agent.hostname, agent.running, agent.slots) for agent in shown]
    return Blocker(BlockerKind.SLOTS_BUSY, f"All {_count(slots, 'slot')} are taken: {named}.", agents=refs)


def _paused(agent: AgentFacts) -> Blocker:
    assert agent.paused_until is not None
    return Blocker(
        BlockerKind.AGENT_PAUSED,
        f"{_name(agent)} is paused{_by(agent.paused_by)} until {_time(agent.paused_until)}{_note(agent.pause_note)}.",
        at=agent.paused_until,
        by=agent.paused_by,
        note=agent.pause_note or None,
        agents=[AgentRef(agent.agent_id, agent.hostname)],
    )


def _draining(agent: AgentFacts) -> Blocker:
    return Blocker(
        BlockerKind.AGENT_DRAINING,
        f"{_name(agent)} takes nothing new: it is drained{_by(agent.drained_by)}{_note(agent.drain_note)}.",
        by=agent.drained_by,
        note=agent.drain_note or None,
        agents=[AgentRef(agent.agent_id, agent.hostname)],
    )


def _tripped(agent: AgentFacts) -> Blocker:
    assert agent.tripped_until is not None
    return Blocker(
        BlockerKind.AGENT_TRIPPED,
        f"{_name(agent)} failed too often in a row and gets nothing until {_time(agent.tripped_until)}.",
        at=agent.tripped_until,
        agents=[AgentRef(agent.agent_id, agent.hostname)],
    )


def _queue(facts: Facts) -> Iterator[Blocker]:
    ticket = facts.ticket
    if ticket is None or _is_retry(facts) or _is_set_aside(facts):
        return
    where = (
        "Its ticket waits in the ledger"
        if ticket.published_at is None
        else f"Its ticket was published at {_time(ticket.published_at)}"
    )
    before = f"{_count(ticket.ahead, 'ticket')} go{'es' if ticket.ahead == 1 else ''} before it"
    if ticket.ahead == 0:
        before = "it is the next of its queue"
    yield Blocker(BlockerKind.QUEUED, f"{where}; {before}.", at=ticket.published_at, ahead=ticket.ahead)


def _expiry(facts: Facts) -> Iterator[Blocker]:
    at = facts.task.expires_at
    if at is None:
        return
    message = f"If it still waits at {_time(at)} it is cancelled."
    if at <= facts.now:
        message = f"It has waited longer than it may, until {_time(at)}, and is being cancelled."
    yield Blocker(BlockerKind.EXPIRES, message, at=at)


def _name(agent: AgentFacts) -> str:
    return f"{agent.hostname} ({agent.agent_id})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _by(name: str | None) -> str:
    return f" by {name}" if name else ""


def _note(note: str | None) -> str:
    return f" ({note})" if note else ""


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
