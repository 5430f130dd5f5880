"""What a transaction of an orchestrator does to rows: the rules decide, this writes, as the SQL does but unguarded.

Each function judges and returns how to write: the two are one step while the rows are locked.
"""

from collections.abc import Callable
from typing import NamedTuple, assert_never

from common.lifecycle import Change, InvalidTransition, Status
from orchestrator.leases.rules import Duplicate, Finish, Requeue, Stale, Stopped
from tests.exploration.rules import Rules
from tests.exploration.scope import Safeguard, Scope
from tests.exploration.state import (
    LEASE,
    Ask,
    Cancel,
    Grant,
    Heard,
    Kept,
    Lost,
    Message,
    Renew,
    Result,
    Row,
    State,
    Stored,
    Task,
    Try,
)

NOTHING: frozenset[Message] = frozenset()


class Ledger(NamedTuple):
    """The rows that one transaction writes. Those of tasks and agents that it has nothing to do with stay."""

    tasks: tuple[Task, ...]
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, state: State) -> "Ledger":
        return cls(state.tasks, state.rows)

    def with_task(self, number: int, task: Task) -> "Ledger":
        return self._replace(tasks=(*self.tasks[:number], task, *self.tasks[number + 1 :]))

    def with_row(self, agent: int, row: Row) -> "Ledger":
        return self._replace(rows=(*self.rows[:agent], row, *self.rows[agent + 1 :]))


Written = tuple[Ledger, frozenset[Message]]
Write = Callable[[Ledger], Written]


def give(scope: Scope, number: int, seen: Task, agent: int, row: Row) -> Write | None:
    """Lease a task to an agent; None when it may not have it, which `LEASE` and `STORE` ask."""
    if row.newest is None or len(seen.tries) >= scope.leases:
        return None
    if row.room <= 0 and scope.has(Safeguard.CREDIT):
        return None
    status = Status.RUNNING
    if scope.has(Safeguard.ONLY_WHAT_WAITS):
        if seen.status is not Status.PENDING:
            return None
        status = scope.rules.next_status(seen.status, Change.CLAIM)

    def write(ledger: Ledger) -> Written:
        task, row = ledger.tasks[number], ledger.rows[agent]
        assert row.newest is not None
        session = row.newest.session
        tries = (*task.tries, Try(agent, session))
        given = task._replace(status=status, lease=LEASE, tries=tries)
        grant = Grant(agent, number, len(tries), session, row.newest.age)
        done = ledger.with_task(number, given).with_row(agent, row._replace(granted=row.granted + 1))
        return done, _one(grant)

    return write


def hear(scope: Scope, asked: Ask) -> Write:
    """A heartbeat comes: its session is noted, and for how much it asks; the answer says how much it was granted.

    One of a process that was replaced counts no more.
    """

    def write(ledger: Ledger) -> Written:
        row = ledger.rows[asked.agent]
        newest = row.newest or asked
        if row.newest is None or (asked.session > newest.session and scope.has(Safeguard.NEW_SESSION)):
            row = Row(asked, asked.limit)
        if asked.session > newest.session:
            newest = asked
        elif asked.session < newest.session:
            return ledger, NOTHING
        limit = max(row.limit, asked.limit)
        lost = max(min(row.lost, row.granted - asked.received), 0) if scope.has(Safeguard.LOST_ONCE) else row.lost
        newest = newest if is_newer(newest, asked) else asked
        row = row._replace(newest=newest, limit=limit, lost=lost)
        return ledger.with_row(asked.agent, row), _one(Heard(asked.agent, asked.session, row.granted))

    return write


def settle(scope: Scope, asked: Ask) -> Write | None:
    """Grant once more what a session misses, by its heartbeat; None when it misses nothing, or counts no more."""
    if asked.heard <= asked.received:
        return None

    def write(ledger: Ledger) -> Written:
        row = ledger.rows[asked.agent]
        if row.newest is None or row.newest.session != asked.session:
            return ledger, NOTHING
        again: set[Message] = set()
        missing = asked.heard - asked.received
        # What was noted as lost before is missed, too.
        is_news = missing > row.lost or not scope.has(Safeguard.LOST_ONCE)
        for number, task in enumerate(ledger.tasks):
            if not is_news or not _is_missed(task, number, asked):
                continue
            missing -= 1
            if scope.has(Safeguard.REGRANT):
                ledger = ledger.with_task(number, task._replace(lease=LEASE))
                again.add(Grant(asked.agent, number, task.attempt, asked.session, asked.age))
        if missing > 0 and scope.has(Safeguard.LOST_ROOM):
            ledger = ledger.with_row(asked.agent, _with_lost(row, asked, missing, scope))
        return ledger, frozenset(again)

    return write


def _is_missed(task: Task, number: int, asked: Ask) -> bool:
    return (
        task.status is Status.RUNNING
        and (task.tries[-1].agent, task.tries[-1].session) == (asked.agent, asked.session)
        and asked.runs != number
    )


def _with_lost(row: Row, asked: Ask, missing: int, scope: Scope) -> Row:
    if not scope.has(Safeguard.LOST_ONCE):
        return row._replace(lost=row.lost + missing)
    if row.newest != asked:
        return row
    return row._replace(lost=max(row.lost, min(missing, row.granted - asked.received)))


def is_newer(one: Ask, other: Ask) -> bool:
    """Say whether an agent sent this after the other: all that it says only grows."""
    return _order(one) > _order(other)


def _order(asked: Ask) -> tuple[int, ...]:
    return asked.session, asked.limit, asked.received, asked.heard, -asked.age


def renew(number: int, seen: Task, asked: Renew) -> Write:
    """An agent wants to keep a task; the guard is that of the statement `RENEW`."""

    def write(ledger: Ledger) -> Written:
        held = seen.status is Status.RUNNING and (seen.attempt, seen.tries[-1].agent) == (asked.attempt, asked.agent)
        if not held:
            return ledger, _one(Lost(asked.agent, asked.task, asked.attempt))
        kept = ledger.with_task(number, ledger.tasks[number]._replace(lease=LEASE))
        return kept, _one(Kept(asked.agent, asked.task, asked.attempt, asked.number))

    return write


def accept(scope: Scope, seen: Task, most: int, sent: Result, credit: Ask) -> Write:
    """An agent reports how an attempt ended; whatever is judged, the agent may forget it. It asks for more work."""
    verdict = scope.rules.result(seen, most, sent)

    def write(ledger: Ledger) -> Written:
        newest = ledger.rows[sent.agent].newest
        if newest is not None and newest.session == credit.session:
            ledger, _ = hear(scope, credit)(ledger)
        task = ledger.tasks[sent.task]
        answer = _one(Stored(sent.agent, sent.task, sent.attempt))
        match verdict:
            case Finish(status=status):
                task = _end(task, sent, counts=True)._replace(status=status, lease=0)
            case Requeue(counts=counts):
                unstarted = task.unstarted + (not counts)
                task = _end(task, sent, counts=True)._replace(status=Status.PENDING, lease=0, unstarted=unstarted)
            case Stopped():
                task = _end(task, sent, counts=False)
            case Duplicate() | Stale():
                return ledger, answer
            case _:
                assert_never(verdict)
        return ledger.with_task(sent.task, task), answer

    return write


def reap(rules: Rules, number: int, seen: Task, most: int) -> Write:
    """The lease of a task ran out."""
    verdict = rules.lost(number, seen, most)

    def write(ledger: Ledger) -> Written:
        task = ledger.tasks[number]
        last = task.tries[-1]
        ended = (*task.tries[:-1], last._replace(outcome=last.outcome or "lost"))
        match verdict:
            case Finish(status=status):
                task = task._replace(status=status, lease=0, tries=ended)
            case Requeue():
                task = task._replace(status=Status.PENDING, lease=0, tries=ended)
            case _:
                assert_never(verdict)
        return ledger.with_task(number, task), NOTHING

    return write


def cancel(rules: Rules, number: int, seen: Task) -> Write | None:
    """A caller cancels a task; None when it has ended."""
    try:
        status = rules.next_status(seen.status, Change.CANCEL)
    except InvalidTransition:
        return None

    def write(ledger: Ledger) -> Written:
        task = ledger.tasks[number]
        if seen.status is not Status.RUNNING:
            return ledger.with_task(number, task._replace(status=status)), NOTHING
        last = task.tries[-1]
        ended = (*task.tries[:-1], last._replace(outcome=last.outcome or "cancelled"))
        stopped = task._replace(status=status, lease=0, tries=ended)
        return ledger.with_task(number, stopped), _one(Cancel(last.agent, number, task.attempt))

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
