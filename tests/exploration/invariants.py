"""What must hold: in every state, and on every step. The names are those of "What must hold" in the design."""

from common.lifecycle import TRANSITIONS, Status
from tests.exploration.model import Action
from tests.exploration.scope import Scope
from tests.exploration.state import Asking, Grant, Message, Refusal, Running, State, Task

MOVES = frozenset((before, after) for (before, _), after in TRANSITIONS.items())
MEANING = {
    "I1": "a result that was written down stays in the spool until the ledger has dealt with its attempt",
    "I2": "nothing runs that was not granted to that agent",
    "I3": "whoever holds the lease is told so, however often it asks",
    "I4": "at most one live lease; one asking wins at most one; the fence only rises",
    "I5": "at most one accepted result per attempt, with the fence of its live lease",
    "I6": "starts never exceed max_attempts; what is not idempotent starts at most once",
    "I7": "only moves of the table; final is final",
    "I8": "work of a lease has stopped before the lease ends",
    "I9": "without further faults every task ends, or waits to be claimed, and nothing is left to report",
    "I12": "after a cancel no lease is granted, and a late result changes nothing",
}
CONVERGENCE = "I9"


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
        if action.name == "claim":
            broken |= _of_answer(before, action, after)
        return frozenset(broken)

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
    fences = [one.fence for one in new.tries]
    open_tries = [one for one in new.tries if one.outcome is None]
    if (
        new.fence < old.fence
        or fences != sorted(set(fences))
        or len({one.claim for one in new.tries}) < len(new.tries)
        or len(open_tries) != (new.status is Status.RUNNING)
    ):
        broken.add("I4")
    if any(one.accepted > 1 for one in new.tries):
        broken.add("I5")
    accepted = sum(one.accepted for one in new.tries) - sum(one.accepted for one in old.tries)
    if accepted and (old.status is not Status.RUNNING or getattr(action.message, "fence", None) != old.fence):
        broken.add("I5")
    return broken


def _what_counts(task: Task) -> tuple[object, ...]:
    return (task.status, task.fence, tuple((one.fence, one.outcome, one.accepted) for one in task.tries))


def _of_answer(before: State, action: Action, after: State) -> set[str]:
    """What the claimant is told, compared with what the ledger held when it was judged."""
    assert action.task is not None
    task = before.tasks[action.task]
    told = _said(after) - _said(before)
    broken: set[str] = set()
    if task.status is Status.RUNNING and any(
        isinstance(answer, Refusal) and (answer.agent, answer.claim) == (task.tries[-1].agent, task.tries[-1].claim)
        for answer in told
    ):
        broken.add("I3")
    if task.status is Status.CANCELLED and any(isinstance(answer, Grant) for answer in told):
        broken.add("I12")
    return broken


def _said(state: State) -> frozenset[Message]:
    return state.network.union(*(hand.answers for hand in state.hands))


def _of_agents(state: State) -> set[str]:
    broken: set[str] = set()
    for number, agent in enumerate(state.agents):
        at_work = set(agent.orphans)
        if isinstance(agent.slot, Running):
            at_work.add((agent.slot.task, agent.slot.fence))
        for task_number, fence in at_work:
            task = state.tasks[task_number]
            granted = next((one for one in task.tries if (one.agent, one.fence) == (number, fence)), None)
            if granted is None:
                broken.add("I2")
                continue
            live = task.status is Status.RUNNING and task.fence == fence and task.lease > 0
            if not live and granted.outcome != "cancelled":
                broken.add("I8")
    return broken


def describe(state: State) -> str:
    """Return one line about a state, for people."""
    tasks = [
        f"task {n}: {task.status} fence {task.fence} lease {task.lease} begun {task.begun}"
        + "".join(f" [{one.agent}/{one.fence}:{one.outcome or 'open'}]" for one in task.tries)
        for n, task in enumerate(state.tasks)
    ]
    held = []
    for n, agent in enumerate(state.agents):
        match agent.slot:
            case Running(task=task, fence=fence, left=left):
                held.append(f"agent {n} runs {task} under fence {fence}, {left} left")
            case Asking(task=task, claim=claim):
                held.append(f"agent {n} asks for {task} ({claim})")
    return "; ".join([*tasks, *held])


def explain(action: Action | None) -> str:
    """Return what happened, for people."""
    if action is None:
        return "start"
    who = "" if action.agent is None else f" by agent {action.agent}"
    what = "" if action.message is None else f": {action.message}"
    about = "" if action.task is None or action.message is not None else f" of task {action.task}"
    return f"{action.name}{about}{who}{what}"
