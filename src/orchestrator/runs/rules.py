"""What becomes of a run next: which steps begin, which loops go round, what is undone, and how it ends. Pure.

Nothing of it is kept: whoever looks at the same tasks decides the same, so that a crash between a decision and what
follows from it repeats the decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from math import inf
from typing import Any, Literal

from common.compose import COMPOSE_REPAIR
from common.errors import InvalidField
from common.plans.conditions import holds
from common.plans.hints import hints_of
from common.plans.model import Condition, Step, Undo
from common.plans.references import Scope, references_in, resolve
from common.plans.status import RunStatus
from common.rest.runs import RunStepStatus, StepKind
from orchestrator.runs.history import LOST, OPEN, History, StepKey, StepState

__all__ = [
    "Again",
    "Ending",
    "History",
    "Move",
    "Refuse",
    "Standing",
    "Start",
    "StepKey",
    "StepState",
    "advance",
    "to_repeat",
]

Ending = Literal["failed", "cancelled"]
SKIPPED, PENDING, RUNNING = RunStepStatus.SKIPPED, RunStepStatus.PENDING, RunStepStatus.RUNNING
SUCCEEDED, FAILED, CANCELLED = RunStepStatus.SUCCEEDED, RunStepStatus.FAILED, RunStepStatus.CANCELLED
WAITING = frozenset({PENDING, RunStepStatus.AWAITING_APPROVAL})
MOST_NAMED = 20
NO_PAUSE = timedelta(0)


@dataclass(frozen=True, slots=True)
class Start:
    """A step or an undo that begins, after a pause, with what its references stand for. `number` counts the rows of
    each.
    """

    step: str
    kind: StepKind
    parameters: Mapping[str, Any]
    number: int
    hints: Mapping[str, Any] = field(default_factory=dict)
    pause: timedelta = NO_PAUSE


@dataclass(frozen=True, slots=True)
class Refuse:
    """A step or an undo that would begin and cannot: it has failed."""

    step: str
    kind: StepKind
    number: int
    problem: str


@dataclass(frozen=True, slots=True)
class Again:
    """The steps of a loop that begins another round: their rows are superseded."""

    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a step stands in its run: like its task, or pending or skipped without one. `problem` says why.

    A step whose loop is at its end while the condition does not hold has failed, whatever its task says. `breaks`: what
    needs it cannot succeed any more. `repeats`: the condition of its loop does not hold, and rounds are left.
    """

    status: RunStepStatus
    problem: str = ""
    breaks: bool = False
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """What is to be done now, in this order: `again`, `starts`; and how the run and its steps stand then.

    After a `Refuse` the run is to be looked at again: the step is over at once, and no task will say so.
    """

    starts: Sequence[Start | Refuse]
    again: Again | None
    status: RunStatus
    ending: Ending | None
    error_message: str | None
    standings: Mapping[str, Standing]

    @property
    def is_over(self) -> bool:
        return self.status.is_final


def advance(history: History, *, ending: Ending | None, cancelled: bool) -> Move:
    """Return what a run does next."""
    standings = _begun(history)
    has_failed = any(standing.breaks for standing in standings.values())
    is_stopped = cancelled or ending is not None
    if not has_failed and not is_stopped and (again := _again(history, standings)):
        return replace(advance(history.superseded(again), ending=None, cancelled=False), again=Again(again))
    starts = _begin(history, standings, has_failed=has_failed, is_stopped=is_stopped)
    message = _message(history, standings)
    if starts or any(not state.is_over for state in history.states.values()):
        return Move(starts, None, _status(history, starts), ending, message, standings)
    if not has_failed and not is_stopped:
        return Move([], None, RunStatus.SUCCEEDED, None, None, standings)
    ending = ending or ("cancelled" if cancelled else "failed")
    if (undo := _undo(history)) is not None:
        return Move([undo], None, RunStatus.RUNNING, ending, message, standings)
    return Move([], None, _end(history, ending), ending, message, standings)


def to_repeat(history: History, *, from_step: str | None) -> list[str]:
    """Return the steps whose rows a retry supersedes, with the rows of all undos: from a step on, by default from those
    that failed; also what was undone, or could not be, or was left as it was when the run was abandoned, what a host
    has prepared for a step that failed there, and whatever waits for one of these.

    Raises `InvalidField` for a step that the plan does not have.
    """
    order = history.order
    if from_step is not None and from_step not in order.steps:
        raise InvalidField("from_step", f"{from_step!r} is no step of this plan; it has: {', '.join(order.steps)}")
    found = set() if from_step is None else {from_step}
    for step, standing in _begun(history).items():
        state, undo = history.of(step), history.states.get((step, StepKind.UNDO))
        if standing.breaks and state is not None and state.status == SUCCEEDED:
            found.update(order.loops[step])  # its task has nothing to repeat, its loop has
        elif standing.breaks or standing.status in (CANCELLED, RUNNING) or undo is not None:
            found.add(step)  # where an undo failed, nobody knows how much of the step is left
    found |= {prepared for step in found for prepared in _spent(history, step)}
    for step, waits in order.waits.items():
        if not found.isdisjoint(waits):
            found.add(step)
    return [step for step in order.steps if step in found]


def _spent(history: History, name: str) -> set[str]:
    """Return the steps whose tasks a repair has gone on with, which failed, or of whose end its host said nothing: the
    host has nothing of them any more, or nobody knows.
    """
    step, state = history.order.steps[name], history.of(name)
    if step.work_type != COMPOSE_REPAIR or state is None:
        return set()
    if state.status not in (FAILED, RUNNING) and state.undone is None:
        return set()
    return {
        reference.step
        for _, reference in references_in(step.parameters, "parameters")
        if reference.source == "steps" and reference.path == ("task_id",)
    }


def _begun(history: History) -> dict[str, Standing]:
    """Return how the steps stand that have begun."""
    found = ((name, history.of(name)) for name in history.order.steps)
    return {name: _judged(history, name, state) for name, state in found if state is not None}


def _judged(history: History, name: str, state: StepState) -> Standing:
    step = history.order.steps[name]
    breaks = state.status in LOST and not step.may_fail
    ended = Standing(state.status, state.error or "", breaks)
    if step.repeat is None or not history.may_repeat(name, state):
        return ended
    try:
        if holds(step.repeat.until, history.scope_after(name, state), "repeat.until"):
            return ended
    except InvalidField as problem:
        return Standing(FAILED, str(problem), not step.may_fail)
    rounds = history.round_of(name)
    if rounds < step.repeat.at_most:
        return replace(ended, repeats=True)
    return Standing(FAILED, f"the condition of its loop does not hold after round {rounds}", not step.may_fail)


def _again(history: History, standings: Mapping[str, Standing]) -> tuple[str, ...]:
    """Return the steps of the loops that begin another round, in their order."""
    loops = (history.order.loops[name] for name, standing in standings.items() if standing.repeats)
    again = {name for loop in loops for name in loop}
    return tuple(name for name in history.order.steps if name in again)


def _begin(
    history: History, standings: dict[str, Standing], *, has_failed: bool, is_stopped: bool
) -> list[Start | Refuse]:
    """Return the steps that begin now, and add how all stand that have not begun."""
    starts: list[Start | Refuse] = []
    for name, waits in history.order.waits.items():
        if name in standings:
            continue
        if is_stopped:
            standings[name] = Standing(SKIPPED, "the run ended before it began")
            continue
        if any(standings[other].status in OPEN for other in waits):
            standings[name] = Standing(PENDING)
            continue
        needs = [standings[need] for need in history.order.needs[name]]
        match _decided(history, name, needs, has_failed=has_failed):
            case str(reason):
                standings[name] = Standing(SKIPPED, reason, any(need.breaks for need in needs))
            case start:
                standings[name] = Standing(PENDING)
                starts.append(start)
    return starts


def _decided(history: History, name: str, needs: Sequence[Standing], *, has_failed: bool) -> Start | Refuse | str:
    """Return how a step begins of which all that it waits for is over, or why it is skipped."""
    step, scope = history.order.steps[name], history.scope_before(name)
    try:
        reason = _reason_to_skip(step, needs, scope, has_failed=has_failed)
    except InvalidField as problem:
        return Refuse(name, StepKind.STEP, history.next_number(name, StepKind.STEP), str(problem))
    return _start(history, name, StepKind.STEP, step, scope) if reason is None else reason


def _reason_to_skip(step: Step, needs: Sequence[Standing], scope: Scope, *, has_failed: bool) -> str | None:
    if step.when == "always":
        return None
    if step.when == "failed":
        is_due = any(need.breaks or need.status in LOST for need in needs)
        return None if is_due else "nothing that it needs has failed"
    if has_failed:
        return "an earlier step failed"
    if step.when == "not_failed":
        return None
    if any(need.status == SKIPPED for need in needs):
        return "a step that it needs was skipped"
    if isinstance(step.when, Condition) and not holds(step.when, scope, "when"):
        return "its condition does not hold"
    return None


def _start(history: History, name: str, kind: StepKind, part: Step | Undo, scope: Scope) -> Start | Refuse:
    number = history.next_number(name, kind)
    try:
        parameters = resolve(part.parameters, scope, "parameters")
        hints = hints_of(resolve(part.hints, scope, "hints"), "hints")
    except InvalidField as problem:
        return Refuse(name, kind, number, str(problem))
    pause = history.pause_before(name) if kind is StepKind.STEP else NO_PAUSE
    return Start(name, kind, parameters, number, hints, pause)


def _undo(history: History) -> Start | Refuse | None:
    """Return the undo that comes next: of the step, among those not undone, that ended last."""
    due = [
        (done.ended, number, name, undo, done)
        for number, (name, step) in enumerate(history.order.steps.items())
        if (undo := step.undo) is not None
        and (name, StepKind.UNDO) not in history.states
        and (done := history.to_undo(name)) is not None
    ]
    if not due:
        return None
    _, _, name, undo, done = max(due, key=lambda one: one[:2])
    return _start(history, name, StepKind.UNDO, undo, history.scope_after(name, done))


def _status(history: History, starts: Sequence[Start | Refuse]) -> RunStatus:
    """Return how a run stands that is not over."""
    open_ones = [state.status for state in history.states.values() if not state.is_over]
    if not starts and all(status == RunStepStatus.AWAITING_APPROVAL for status in open_ones):
        return RunStatus.AWAITING_APPROVAL
    rows = (*history.states.values(), *(row for rows in history.earlier.values() for row in rows))
    has_begun = any(row.is_of_this_try and row.status not in WAITING for row in rows)
    return RunStatus.RUNNING if has_begun else RunStatus.PENDING


def _end(history: History, ending: Ending) -> RunStatus:
    if ending == "cancelled":
        return RunStatus.CANCELLED
    undone = [state.status == SUCCEEDED for (_, kind), state in history.states.items() if kind == StepKind.UNDO]
    undone += [state.undone for state in history.states.values() if state.undone is not None]
    return RunStatus.ROLLED_BACK if undone and all(undone) else RunStatus.FAILED


def _message(history: History, standings: Mapping[str, Standing]) -> str | None:
    """Return which step failed first, and what could not be undone; None when nothing failed."""
    failed = [name for name, standing in standings.items() if standing.breaks and history.of(name) is not None]
    undos = [name for (name, kind), state in history.states.items() if kind == StepKind.UNDO and state.status in LOST]
    parts = []
    if failed:
        first = min(failed, key=lambda name: _ended(history, name))
        verb = "was cancelled" if standings[first].status == CANCELLED else "failed"
        problem = standings[first].problem
        # What follows is one more part of the sentence.
        problem = problem.rstrip(".") if undos else problem
        parts.append(f"{first} {verb}" + (f": {problem}" if problem else ""))
    if undos:
        more = len(undos) - MOST_NAMED
        named = ", ".join(undos[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        parts.append(f"could not be undone: {named}")
    return "; ".join(parts) or None


def _ended(history: History, name: str) -> float:
    state = history.of(name)
    return inf if state is None or state.finished_at is None else state.ended
