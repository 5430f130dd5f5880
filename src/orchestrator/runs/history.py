"""What is known of the steps of a run: how their tasks stand, and those of earlier rounds and tries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf
from typing import Any
from uuid import UUID

from common.plans.model import Plan
from common.plans.order import Order, order_of
from common.plans.references import Scope
from common.rest.runs import RunStepStatus, StepKind

StepKey = tuple[str, StepKind]

OPEN = frozenset({RunStepStatus.PENDING, RunStepStatus.RUNNING, RunStepStatus.AWAITING_APPROVAL})
LOST = frozenset({RunStepStatus.FAILED, RunStepStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class StepState:
    """How the task of a step stands, or what came of a step that could not be dispatched: failed, without a task.

    `agent_id` is the agent that has its task, or had it last. Running is also what has ended in the ledger while its
    host has not said how it ended, or that it has stopped. `undone` says of a task that did not succeed whether its
    host took back what it had done; None where there was nothing to take back. `is_of_this_try`: it has begun since the
    last retry.
    """

    number: int
    status: RunStepStatus
    result: Any = None
    output: str = ""
    exit_code: int | None = None
    error: str | None = None
    task_id: UUID | None = None
    agent_id: UUID | None = None
    finished_at: datetime | None = None
    undone: bool | None = None
    is_of_this_try: bool = True

    @property
    def is_over(self) -> bool:
        return self.status not in OPEN

    @property
    def ended(self) -> float:
        """When it ended, to compare: what has no time ended first."""
        return -inf if self.finished_at is None else self.finished_at.timestamp()

    def values(self) -> dict[str, Any]:
        """Return what references may stand for."""
        known = {
            "status": self.status.value,
            "result": self.result,
            "output": self.output,
            "exit_code": self.exit_code,
            "error": self.error or None,
            "task_id": None if self.task_id is None else str(self.task_id),
            "agent_id": None if self.agent_id is None else str(self.agent_id),
            "round": self.number,
        }
        return {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True, slots=True)
class History:
    """The newest row of each step and undo, and in `earlier` those that a loop or a retry superseded, oldest first."""

    order: Order
    inputs: Mapping[str, Any]
    run: Mapping[str, Any]
    states: Mapping[StepKey, StepState]
    earlier: Mapping[StepKey, Sequence[StepState]]

    @classmethod
    def of_plan(
        cls,
        plan: Plan,
        inputs: Mapping[str, Any],
        run: Mapping[str, Any],
        states: Mapping[StepKey, StepState],
        earlier: Mapping[StepKey, Sequence[StepState]],
    ) -> "History":
        """Return the history of a run; `inputs` replace those of the plan, `run` is what references to it stand for."""
        return cls(order_of(plan), {**plan.inputs, **inputs}, run, states, earlier)

    def of(self, name: str) -> StepState | None:
        """Return how a step stands; None before it begins."""
        return self.states.get((name, StepKind.STEP))

    def before(self, name: str, kind: StepKind = StepKind.STEP) -> Sequence[StepState]:
        """Return what came of a step, or of its undo, before it was superseded."""
        return self.earlier.get((name, kind), ())

    def next_number(self, name: str, kind: StepKind) -> int:
        before = self.before(name, kind)
        return before[-1].number + 1 if before else 1

    def superseded(self, steps: Sequence[str]) -> "History":
        """Return the history as it is once steps begin another round."""
        again = {(name, StepKind.STEP) for name in steps} & self.states.keys()
        earlier = {**self.earlier, **{key: [*self.earlier.get(key, ()), self.states[key]] for key in again}}
        states = {key: state for key, state in self.states.items() if key not in again}
        return replace(self, states=states, earlier=earlier)

    def scope_before(self, name: str) -> Scope:
        """Return what a step may refer to that has not begun: of later steps of its loop, what they came to before."""

        def known(other: str) -> Mapping[str, Any]:
            if not self.order.is_before(other, name):
                before = self.before(other)
                return before[-1].values() if before else {}
            state = self.of(other)
            return {"status": RunStepStatus.SKIPPED.value} if state is None else state.values()

        return Scope(self.inputs, self.run, known)

    def scope_after(self, name: str, state: StepState) -> Scope:
        """Return what a step may refer to that has ended so."""
        before = self.scope_before(name)
        return Scope(self.inputs, self.run, lambda other: state.values() if other == name else before.step(other))

    def may_repeat(self, name: str, state: StepState) -> bool:
        """Say whether the loop of a step goes on after it has ended so."""
        return state.status == RunStepStatus.SUCCEEDED or (self.order.steps[name].may_fail and state.status in LOST)

    def round_of(self, name: str) -> int:
        """Return in which round the loop is whose step has ended. Each round of a loop around it begins it from 1, and
        so does a retry; what ended the run is no round.
        """
        state = self.of(name)
        is_kept = state is not None and not state.is_of_this_try
        around = (end for end in self.order.around(name) if end != name)
        since = max((state.ended for end in around for state in self.before(end)), default=-inf)
        return 1 + sum(
            self.may_repeat(name, row) and row.ended > since and (row.is_of_this_try or is_kept)
            for row in self.before(name)
        )

    def pause_before(self, name: str) -> timedelta:
        """Return how long a step waits that begins now: as the loop says of which it begins a further round."""
        ends = [end for end in self.order.around(name) if self._begins(end) == name and self.round_of(end) > 1]
        if not ends:
            return timedelta(0)
        # A round of an outer loop is a first one of the loops in it: the loop that ended last goes round.
        repeat = self.order.steps[max(ends, key=lambda end: self.before(end)[-1].ended)].repeat
        return timedelta(seconds=0 if repeat is None else repeat.every_seconds)

    def _begins(self, end: str) -> str:
        """Return the step with which each round of the loop begins that a step repeats."""
        repeat = self.order.steps[end].repeat
        return end if repeat is None or repeat.from_step is None else repeat.from_step

    def to_undo(self, name: str) -> StepState | None:
        """Return how a step succeeded last, in whatever round, unless that was undone."""
        state = self.of(name)
        rows = (*self.before(name), *(() if state is None else (state,)))
        done = next((row for row in reversed(rows) if row.status == RunStepStatus.SUCCEEDED), None)
        if done is None:
            return None
        undos = self.before(name, StepKind.UNDO)
        was_undone = any(undo.status == RunStepStatus.SUCCEEDED and undo.ended >= done.ended for undo in undos)
        return None if was_undone else done
