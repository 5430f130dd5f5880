"""A run in memory, whose tasks stand as a test says."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID, uuid5

from common.plans.check import check
from common.plans.model import Plan
from common.rest.runs import RunStepStatus, StepKind
from orchestrator.runs.rules import Ending, History, Move, Refuse, Start, StepKey, StepState, advance, to_repeat
from tests.unit.common.plans.plans import make_plan

RUN = UUID("3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11")
STEP, UNDO = StepKind.STEP, StepKind.UNDO
REVERT = {"work_type": "own"}
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Fields(TypedDict, total=False):
    result: Any
    output: str
    exit_code: int | None
    error: str | None
    undone: bool | None


class RunDriver:
    """Does what `advance` says, and keeps the rows as the ledger does."""

    def __init__(self, plan: Plan, **inputs: Any) -> None:
        self.plan = plan
        self.inputs = inputs
        self.states: dict[StepKey, StepState] = {}
        self.earlier: dict[StepKey, list[StepState]] = {}
        self.ending: Ending | None = None
        self.cancelled = False
        self.started: list[Start | Refuse] = []
        self._ticks = 0

    @property
    def history(self) -> History:
        return History.of_plan(self.plan, self.inputs, {"id": str(RUN), "name": "nightly"}, self.states, self.earlier)

    def look(self) -> Move:
        """Return what is next, without doing it."""
        return advance(self.history, ending=self.ending, cancelled=self.cancelled)

    def supersede(self, *keys: StepKey) -> None:
        for key in keys:
            if key in self.states:
                self.earlier.setdefault(key, []).append(self.states.pop(key))

    def follow(self, move: Move) -> None:
        """Do what a move says."""
        self.ending = move.ending
        if move.again is not None:
            self.supersede(*((name, StepKind.STEP) for name in move.again.steps))
        for start in move.starts:
            key = (start.step, start.kind)
            assert key not in self.states, f"{key} is there already"
            self.started.append(start)
            match start:
                case Start():
                    task_id = uuid5(RUN, f"{start.kind}/{start.step}/{start.number}")
                    self.states[key] = StepState(start.number, RunStepStatus.PENDING, task_id=task_id)
                case Refuse():
                    self.end(key, RunStepStatus.FAILED, number=start.number, error=start.problem)

    def go(self) -> Move:
        """Do what is to be done until tasks are to end first."""
        while True:
            move = self.look()
            self.follow(move)
            if not move.starts and move.again is None:
                return move

    def set(self, name: str, status: str, kind: StepKind = StepKind.STEP) -> Move:
        """Let a task be pending, running or waiting for an approval."""
        state = self.states[name, kind]
        self.states[name, kind] = StepState(state.number, RunStepStatus(status), task_id=state.task_id)
        return self.go()

    def finish(
        self, name: str, status: str = "succeeded", kind: StepKind = StepKind.STEP, **fields: Unpack[Fields]
    ) -> Move:
        """Let a task end, and the run go on."""
        assert not self.states[name, kind].is_over
        self.end((name, kind), RunStepStatus(status), **fields)
        return self.go()

    def end(self, key: StepKey, status: RunStepStatus, number: int | None = None, **fields: Unpack[Fields]) -> None:
        self._ticks += 1
        state = self.states.get(key)
        self.states[key] = StepState(
            number or (state.number if state else 1),
            status,
            task_id=state.task_id if state else None,
            finished_at=BEGINNING + timedelta(seconds=self._ticks),
            **fields,
        )

    def retry(self, from_step: str | None = None) -> list[str]:
        """Try the run again as the service does; returns the steps that begin anew."""
        again = to_repeat(self.history, from_step=from_step)
        undos = [key for key in self.states if key[1] is StepKind.UNDO]
        self.supersede(*((name, StepKind.STEP) for name in again), *undos)
        self.states = {key: replace(state, is_of_this_try=False) for key, state in self.states.items()}
        self.earlier = {
            key: [replace(state, is_of_this_try=False) for state in states] for key, states in self.earlier.items()
        }
        self.ending, self.cancelled = None, False
        return again

    def open(self) -> list[str]:
        """Return the steps and undos whose tasks have not ended."""
        return [
            name if kind is StepKind.STEP else f"undo {name}"
            for (name, kind), state in self.states.items()
            if not state.is_over
        ]


def make_run(*steps: dict[str, Any], plan_inputs: dict[str, Any] | None = None, **inputs: Any) -> RunDriver:
    plan = make_plan(*steps, inputs=plan_inputs or {})
    check(plan, inputs)
    run = RunDriver(plan, **inputs)
    run.go()
    return run


def until(name: str, at_most: int = 3, begin: str | None = None, **more: Any) -> dict[str, Any]:
    holds = {"value": f"${{steps.{name}.result.ok?}}", "equals": True}
    return {"until": holds, "at_most": at_most, "from": begin, **more}
