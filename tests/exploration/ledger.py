"""What a transaction of an orchestrator does to a row: the rules decide, this writes, as the SQL does but unguarded.

Each function judges and returns how to write: the two are one step while the row is locked.
"""

from collections.abc import Callable
from typing import assert_never

from common.lifecycle import Change, InvalidTransition, Status
from orchestrator.leases.rules import Duplicate, Finish, Give, GiveAgain, Refuse, Requeue, Stale, Stopped
from tests.exploration.rules import Rules
from tests.exploration.state import (
    LEASE,
    Cancel,
    Claim,
    Grant,
    Kept,
    Lost,
    Message,
    Refusal,
    Renew,
    Result,
    Stored,
    Task,
    Try,
)

Written = tuple[Task, frozenset[Message]]
NOTHING: frozenset[Message] = frozenset()


def claim(rules: Rules, seen: Task, most: int, asked: Claim) -> Callable[[Task], Written]:
    """An agent asks for a task."""
    verdict = rules.claim(seen, most, asked)

    def write(task: Task) -> Written:
        match verdict:
            case Give():
                fence = task.fence + 1
                tries = (*task.tries, Try(asked.agent, fence, asked.claim))
                status = rules.next_status(seen.status, Change.CLAIM)
                given = task._replace(status=status, fence=fence, lease=LEASE, tries=tries)
                return given, _one(Grant(asked.agent, asked.task, len(tries), fence, asked.claim))
            case GiveAgain():
                return task, _one(Grant(asked.agent, asked.task, len(task.tries), task.fence, asked.claim))
            case Refuse():
                return task, _one(Refusal(asked.agent, asked.task, asked.claim))
            case _:
                assert_never(verdict)

    return write


def renew(seen: Task, asked: Renew) -> Callable[[Task], Written]:
    """An agent wants to keep a task; the guard is that of the statement `RENEW`."""

    def write(task: Task) -> Written:
        held = seen.status is Status.RUNNING and (seen.fence, seen.tries[-1].agent) == (asked.fence, asked.agent)
        if not held:
            return task, _one(Lost(asked.agent, asked.task, asked.fence))
        return task._replace(lease=LEASE), _one(Kept(asked.agent, asked.task, asked.fence, asked.number))

    return write


def accept(rules: Rules, seen: Task, most: int, sent: Result) -> Callable[[Task], Written]:
    """An agent reports how an attempt ended; whatever is judged, the agent may forget it."""
    verdict = rules.result(seen, most, sent)

    def write(task: Task) -> Written:
        answer = _one(Stored(sent.agent, sent.task, sent.fence))
        match verdict:
            case Finish(status=status):
                return _end(task, sent, counts=True)._replace(status=status, lease=0), answer
            case Requeue(counts=counts):
                again = _end(task, sent, counts=True)
                unstarted = task.unstarted + (not counts)
                return again._replace(status=Status.PENDING, lease=0, unstarted=unstarted), answer
            case Stopped():
                return _end(task, sent, counts=False), answer
            case Duplicate() | Stale():
                return task, answer
            case _:
                assert_never(verdict)

    return write


def reap(rules: Rules, number: int, seen: Task, most: int) -> Callable[[Task], Written]:
    """The lease of a task ran out."""
    verdict = rules.lost(number, seen, most)

    def write(task: Task) -> Written:
        last = task.tries[-1]
        ended = (*task.tries[:-1], last._replace(outcome=last.outcome or "lost"))
        match verdict:
            case Finish(status=status):
                return task._replace(status=status, lease=0, tries=ended), NOTHING
            case Requeue():
                return task._replace(status=Status.PENDING, lease=0, tries=ended), NOTHING
            case _:
                assert_never(verdict)

    return write


def cancel(rules: Rules, number: int, seen: Task) -> Callable[[Task], Written] | None:
    """A caller cancels a task; None when it has ended."""
    try:
        status = rules.next_status(seen.status, Change.CANCEL)
    except InvalidTransition:
        return None

    def write(task: Task) -> Written:
        if seen.status is not Status.RUNNING:
            return task._replace(status=status), NOTHING
        last = task.tries[-1]
        ended = (*task.tries[:-1], last._replace(outcome=last.outcome or "cancelled"))
        stopped = task._replace(status=status, fence=task.fence + 1, lease=0, tries=ended)
        return stopped, _one(Cancel(last.agent, number, last.fence))

    return write


def _end(task: Task, sent: Result, *, counts: bool) -> Task:
    tries = tuple(
        one._replace(outcome=one.outcome or sent.status.value, reported=True, accepted=one.accepted + counts)
        if number == sent.attempt
        else one
        for number, one in enumerate(task.tries, start=1)
    )
    return task._replace(tries=tries)


def _one(*messages: Message) -> frozenset[Message]:
    return frozenset(messages)
