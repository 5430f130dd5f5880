"""Why a task waits: a pure decision over facts of one moment."""

from collections.abc import Iterable, Iterator

from common.lifecycle import Status
from common.rest.why import BlockerKind
from orchestrator.tasks.model import Task
from orchestrator.why.agents import agents_in_the_way, is_set_aside
from orchestrator.why.model import SHOWN, AgentFacts, AgentRef, Blocker, Explanation, Facts, RefusalFacts
from orchestrator.why.words import counted, time_of


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
        *_pause(facts),
        *_retry(facts),
        *_refused(facts),
        *_delivery(facts),
        *agents_in_the_way(facts),
        *_queue(facts),
        *_expiry(facts),
    ]
    return Explanation(task.task_id, task.status, waiting=True, blockers=blockers)


def _ended(task: Task) -> Blocker:
    because = f": {task.error_message.rstrip('.')}" if task.error_message else ""
    at = "" if task.finished_at is None else f" since {time_of(task.finished_at)}"
    return Blocker(BlockerKind.ENDED, f"It does not wait: it is {task.status}{at}{because}.", at=task.finished_at)


def _running(task: Task, agents: Iterable[AgentFacts]) -> Blocker:
    known = next((agent for agent in agents if agent.agent_id == task.agent_id), None)
    who = f"{known.hostname} ({known.agent_id})" if known is not None else f"agent {task.agent_id}"
    since = "" if task.started_at is None else f" since {time_of(task.started_at)}"
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
        f"until {time_of(asked.expires_at)}.",
        at=asked.expires_at,
        limit=asked.approvers,
    )


def _order(facts: Facts) -> Iterator[Blocker]:
    order, key = facts.order, facts.task.ordering_key
    if order is None or order.ahead == 0 or order.first is None:
        return
    yield Blocker(
        BlockerKind.ORDERING_KEY,
        f"It waits behind {counted(order.ahead, 'task')} of the ordering key {key!r}; "
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


def _pause(facts: Facts) -> Iterator[Blocker]:
    at = facts.task.not_before
    if at is not None and _is_paused(facts):
        yield Blocker(BlockerKind.LOOP_PAUSE, f"It begins at {time_of(at)} at the earliest: its loop pauses.", at=at)


def _is_paused(facts: Facts) -> bool:
    """Say whether it waits for its time to begin at all."""
    at = facts.task.not_before
    return at is not None and at > facts.now and facts.task.attempt == 0


def _retry(facts: Facts) -> Iterator[Blocker]:
    task, at = facts.task, facts.task.not_before
    if at is None or not _is_retry(facts):
        return
    because = f", after: {task.error_message.rstrip('.')}" if task.error_message else ""
    yield Blocker(
        BlockerKind.RETRY_DUE,
        f"Start {task.starts + 1} of at most {task.max_attempts} is due at {time_of(at)}{because}.",
        at=at,
    )


def _refused(facts: Facts) -> Iterator[Blocker]:
    """Say which agents gave the task back before anything of it ran, and why."""
    refusals = facts.refusals
    if not refusals:
        return
    shown = refusals[:SHOWN]
    named = "; ".join(map(_refusal, shown))
    times = counted(sum(one.times for one in refusals), "time")
    others = f" Those are the last {SHOWN} of {len(refusals)} agents." if len(refusals) > SHOWN else ""
    message = f"Before anything of it ran it was given back {times}: {named}.{others} Other agents go first."
    refs = [AgentRef(one.agent_id, one.hostname, since=one.at) for one in shown if one.hostname is not None]
    yield Blocker(BlockerKind.REFUSED, message, at=shown[0].at, agents=refs)


def _refusal(one: RefusalFacts) -> str:
    who = f"agent {one.agent_id}" if one.hostname is None else f"{one.hostname} ({one.agent_id})"
    reason = (one.reason or "no reason was given").rstrip(".")
    return f"by {who} {counted(one.times, 'time')}, last at {time_of(one.at)}: {reason}"


def _is_retry(facts: Facts) -> bool:
    at = facts.task.not_before
    return facts.task.admitted and at is not None and at > facts.now and facts.task.attempt > 0


def _delivery(facts: Facts) -> Iterator[Blocker]:
    if facts.broker_failure is not None:
        yield Blocker(BlockerKind.BROKER_DOWN, f"The broker cannot be used: {facts.broker_failure}")
    elif facts.giving_failure is not None:
        yield Blocker(BlockerKind.LEASING_FAILING, f"No task can be leased right now: {facts.giving_failure}")


def _queue(facts: Facts) -> Iterator[Blocker]:
    if facts.ahead is None or _is_paused(facts) or _is_retry(facts) or is_set_aside(facts):
        return
    before = f"{counted(facts.ahead, 'task')} go{'es' if facts.ahead == 1 else ''} before it"
    if facts.ahead == 0:
        before = "it is the next of its queue"
    yield Blocker(BlockerKind.QUEUED, f"It waits in the ledger; {before}.", ahead=facts.ahead)


def _expiry(facts: Facts) -> Iterator[Blocker]:
    at = facts.task.expires_at
    if at is None:
        return
    message = f"If it still waits at {time_of(at)} it is cancelled."
    if at <= facts.now:
        message = f"It has waited longer than it may, until {time_of(at)}, and is being cancelled."
    yield Blocker(BlockerKind.EXPIRES, message, at=at)
