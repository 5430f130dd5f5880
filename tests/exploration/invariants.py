"""What must hold: in every state, and on every step. The names are those of "What must hold" in the design."""

from common.lifecycle import TRANSITIONS, Status
from tests.exploration.model import Action
from tests.exploration.scope import Scope
from tests.exploration.state import SLOTS, Agent, Ask, Grant, Message, State, Task

MOVES = frozenset((before, after) for (before, _), after in TRANSITIONS.items())
MEANING = {
    "I1": "a result that was written down stays in the spool until the ledger has dealt with its attempt",
    "I2": "nothing runs that was not granted to that agent",
    "I3": "whoever holds the lease is told so, however often it says that it was not",
    "I4": "at most one live lease; the number of attempts only rises",
    "I5": "at most one accepted result per attempt, while its lease lives",
    "I6": "starts never exceed max_attempts; what is not idempotent starts at most once",
    "I7": "only moves of the table; final is final",
    "I8": "work of a lease has stopped before the lease ends",
    "I9": "without further faults every task ends or waits, nothing is left to report, and all slots can be used",
    "I12": "after a cancel no lease is granted, and a late result changes nothing",
    "credit": "an agent is granted, and can be granted, no more than it has slots for, but for what came after all",
}
CONVERGENCE = "I9"
NONE: frozenset[str] = frozenset()


class Invariants:
    """Looks at what a step changed, and at what it led to."""

    def __init__(self, scope: Scope) -> None:
        self._most = scope.most

    def broken_by(self, before: State, action: Action, after: State) -> frozenset[str]:
        """Return the names of the invariants that a step broke."""
        broken: set[str] = set()
        for number, (old, new) in enumerate(zip(before.tasks, after.tasks, strict=True)):
            if old is not new and old != new:
                broken |= _of_change(old, new, action)
                if new.begun > self._most[number]:
                    broken.add("I6")
        if action.name in ("give", "settle"):
            broken |= _of_grants(before, action, after)
        return frozenset(broken) if broken else NONE

    def broken_in(self, state: State) -> frozenset[str]:
        """Return the names of the invariants that do not hold in a state."""
        broken = _of_agents(state)
        if state.written and not state.written <= frozenset().union(*(agent.spool for agent in state.agents)):
            broken.add("I1")
        return frozenset(broken)


def _of_change(old: Task, new: Task, action: Action) -> set[str]:
    broken: set[str] = set()
    if new.status is not old.status and (old.status, new.status) not in MOVES:
        broken.add("I7")
    if old.status.is_final and _what_counts(old) != _what_counts(new):
        broken.add("I7")
    if old.status is Status.CANCELLED and _what_counts(old) != _what_counts(new):
        broken.add("I12")
    open_tries = [one for one in new.tries if one.outcome is None]
    if new.attempt < old.attempt or len(open_tries) != (new.status is Status.RUNNING):
        broken.add("I4")
    if any(one.accepted > 1 for one in new.tries):
        broken.add("I5")
    accepted = sum(one.accepted for one in new.tries) - sum(one.accepted for one in old.tries)
    if accepted and (old.status is not Status.RUNNING or getattr(action.message, "attempt", None) != old.attempt):
        broken.add("I5")
    return broken


def _what_counts(task: Task) -> tuple[object, ...]:
    return (task.status, tuple((one.outcome, one.accepted) for one in task.tries))


def _of_grants(before: State, action: Action, after: State) -> set[str]:
    """What agents are told, compared with what the ledger held when it was judged."""
    told = _said(after) - _said(before)
    granted = [message for message in told if isinstance(message, Grant)]
    broken: set[str] = set()
    if any(before.tasks[grant.task].status is Status.CANCELLED for grant in granted):
        broken.add("I12")
    if isinstance(action.message, Ask) and not _is_told_again(before, after, action.message):
        broken.add("I3")
    return broken


def _is_told_again(before: State, after: State, asked: Ask) -> bool:
    """Say whether there is a grant of every lease that a session which lives, and is known, holds and does not name.

    So it must be when the session misses more than what is over.
    """
    newest, agent = before.rows[asked.agent].newest, before.agents[asked.agent]
    over = len(_ended(asked.agent, before) - agent.seen)
    if newest is None or not newest.session == asked.session == agent.session or asked.heard - asked.received <= over:
        return True
    granted = {
        (one.agent, one.task, one.attempt) for one in _said(after) if isinstance(one, Grant) and one.age <= asked.age
    }
    return bool(_came_after_all(asked.agent, before)) or all(
        number == asked.runs
        or task.status is not Status.RUNNING
        or (task.tries[-1].agent, task.tries[-1].session) != (asked.agent, asked.session)
        or (asked.agent, number, task.attempt) in granted
        or (number, task.attempt) in agent.seen
        for number, task in enumerate(before.tasks)
    )


def _said(state: State) -> frozenset[Message]:
    return state.network.union(*(hand.answers for hand in state.hands))


def _of_agents(state: State) -> set[str]:
    broken: set[str] = set()
    for number, agent in enumerate(state.agents):
        at_work = set(agent.orphans)
        if agent.slot is not None:
            at_work.add((agent.slot.task, agent.slot.attempt))
        for task_number, attempt in at_work:
            task = state.tasks[task_number]
            if not task.has(attempt, number):
                broken.add("I2")
                continue
            live = task.status is Status.RUNNING and task.attempt == attempt and task.lease > 0
            if not live and task.tries[attempt - 1].outcome != "cancelled":
                broken.add("I8")
        row = state.rows[number]
        room = row.room if row.newest is not None and row.newest.session == agent.session else 0
        taken = sum(_takes_a_slot(number, agent, task, one) for task, one in enumerate(state.tasks))
        if taken + max(room, 0) > SLOTS + _came_after_all(number, state):
            broken.add("credit")
    return broken


def _came_after_all(number: int, state: State) -> int:
    """Return how many grants, at most, came although the ledger took them for lost, for their leases were over."""
    return min(state.rows[number].lost, len(_ended(number, state) & state.agents[number].seen))


def _ended(number: int, state: State) -> set[tuple[int, int]]:
    """Return the attempts that were leased to the process of an agent and are over in the ledger."""
    return {
        (task_number, attempt)
        for task_number, task in enumerate(state.tasks)
        for attempt, one in enumerate(task.tries, 1)
        if (one.agent, one.session) == (number, state.agents[number].session) and one.outcome is not None
    }


def _takes_a_slot(number: int, agent: Agent, task_number: int, task: Task) -> bool:
    """Say whether a task is leased to the process that runs, and has not ended there."""
    if task.status is not Status.RUNNING:
        return False
    last, slot = task.tries[-1], agent.slot
    if (last.agent, last.session) != (number, agent.session):
        return False
    is_run = slot is not None and (slot.task, slot.attempt) == (task_number, task.attempt)
    return is_run or (task_number, task.attempt) not in agent.seen


def describe(state: State) -> str:
    """Return one line about a state, for people."""
    tasks = [
        f"task {n}: {task.status} lease {task.lease} begun {task.begun}"
        + "".join(f" [{one.agent}/{number}:{one.outcome or 'open'}]" for number, one in enumerate(task.tries, 1))
        for n, task in enumerate(state.tasks)
    ]
    rows = [
        f"agent {n}: limit {row.limit} granted {row.granted} lost {row.lost}"
        for n, row in enumerate(state.rows)
        if row.newest is not None
    ]
    runs = [
        f"agent {n} runs attempt {agent.slot.attempt} of {agent.slot.task}, {agent.slot.left} left"
        for n, agent in enumerate(state.agents)
        if agent.slot is not None
    ]
    return "; ".join([*tasks, *rows, *runs])


def explain(action: Action | None) -> str:
    """Return what happened, for people."""
    if action is None:
        return "start"
    who = "" if action.agent is None else f" by agent {action.agent}"
    what = "" if action.message is None else f": {action.message}"
    about = "" if action.task is None or action.message is not None else f" of task {action.task}"
    return f"{action.name}{about}{who}{what}"
