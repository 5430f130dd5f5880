"""Random plans, driven to their ends by random events: what must hold whatever happens."""

from collections import defaultdict
from random import Random
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from common.errors import InvalidField
from common.plans.check import check
from common.plans.model import Plan, Step
from common.plans.read import plan_of
from common.plans.status import RunStatus
from common.rest.runs import RunStepStatus, StepKind
from orchestrator.runs.rules import Move, Start
from tests.fuzz.bounds import bounded, many
from tests.unit.orchestrator.run_driver import RunDriver

STEP, UNDO = StepKind.STEP, StepKind.UNDO
EXAMPLES = 50
# Loops within loops multiply their rounds: so many of them in the short form.
MOST_LOOPS = many(2)
FIXED = {"value": "${run.name}"}


# Of steps that need something; others can only be made to wait for nothing.
WHENS: list[Any] = ["succeeded"] * 4 + ["failed", "not_failed", "always", {**FIXED, "equals": "nightly"}]
WHENS += [{**FIXED, "equals": ""}, {"value": "of a need", "equals": True}]


@st.composite
def steps(draw: st.DrawFn, name: str, before: dict[str, set[str]]) -> dict[str, Any]:
    """Return a step, and note in `before` all that comes before it."""
    names = list(before)
    needs = draw(st.none() | st.lists(st.sampled_from(names), unique=True, max_size=3)) if names else []
    named = names[-1:] if needs is None else needs
    before[name] = set(named).union(*(before[need] for need in named))
    when = draw(st.sampled_from(WHENS if named else [*WHENS[:4], *WHENS[5:-1]]))
    if isinstance(when, dict) and when["value"] == "of a need":
        when = {**when, "value": f"${{steps.{named[-1]}.result.done}}"}
    repeat = {
        "until": {"value": f"${{steps.{name}.result.done?}}", "equals": True},
        "at_most": draw(st.integers(1, 3)),
        "from": draw(st.sampled_from([name, *sorted(before[name])])),
    }
    undo = {"work_type": "own", "parameters": {"was": f"${{steps.{name}.result.was}}"}}
    return {
        "name": name,
        "work_type": "own",
        "needs": needs,
        "when": when,
        "repeat": draw(st.sampled_from([None, None, repeat])),
        "undo": draw(st.sampled_from([None, undo])),
        "may_fail": draw(st.booleans()),
        "parameters": {"status": f"${{steps.{named[0]}.status}}"} if named else {},
    }


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    before: dict[str, set[str]] = {}
    found = [draw(steps(f"s{number}", before)) for number in range(draw(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8])))]
    for one in [one for one in found if one["repeat"] is not None][MOST_LOOPS:]:
        one["repeat"] = None
    if all(one["needs"] is not None for one in found):
        found = draw(st.permutations(found))
    plan = plan_of({"steps": found})
    try:
        check(plan)
    except InvalidField:
        assume(False)
    return plan


# What happens, and how often: hypothesis's own randomness prefers what comes first.
CHANCES = st.integers(0, 2**32 - 1).map(Random)


class Watched:
    """A run whose every move is held against what must hold."""

    def __init__(self, plan: Plan, chance: Random) -> None:
        self.run = RunDriver(plan)
        self.chance = chance
        self.steps = {step.name: step for step in plan.steps}
        names = list(self.steps)
        self.needs = {
            step.name: names[max(number - 1, 0) : number] if step.needs is None else step.needs
            for number, step in enumerate(plan.steps)
        }
        self.loops = {name: self._loop(step) for name, step in self.steps.items() if step.repeat is not None}
        self.undone: list[float] = []

    @property
    def most_events(self) -> int:
        """What can happen: each round and each undo begins, is taken up and ends, and a loop begins again after one."""
        return 10 + 4 * sum(self._most_rounds(name) + 1 for name in self.steps)

    def to_the_end(self) -> Move:
        for _ in range(self.most_events):
            move = self.run.look()
            assert move == self.run.look()
            assert set(move.standings) == set(self.steps)
            self._check(move)
            self._check_that_half_of_it_changes_nothing(move)
            self.run.follow(move)
            if move.is_over:
                return move
            if not move.starts:
                self._something_happens()
        raise AssertionError("it never ends")

    def _check(self, move: Move) -> None:
        if move.again is not None:
            self._check_again(move.again.steps)
        again = set() if move.again is None else set(move.again.steps)
        rows = {key: state for key, state in self.run.states.items() if key[1] is UNDO or key[0] not in again}
        for start in move.starts:
            assert (start.step, start.kind) not in rows
            before = len(self.run.earlier.get((start.step, start.kind), ()))
            before += (start.step, start.kind) in self.run.states
            assert start.number == before + 1
            if start.kind is STEP:
                self._check_start(start.step, rows, move)
            else:
                self._check_undo(start.step, move)
        if move.is_over:
            self._check_end(move)

    def _check_start(self, name: str, rows: dict[Any, Any], move: Move) -> None:
        assert not self.run.cancelled
        assert move.ending is None
        outside = [end for end, loop in self.loops.items() if loop & set(self.needs[name]) and name not in loop]
        for other in (*self.needs[name], *outside):
            state = rows.get((other, STEP))
            assert move.standings[other].status is RunStepStatus.SKIPPED if state is None else state.is_over
            assert not move.standings[other].repeats or self._has_failed() or self._may_have_used_up_a_loop()
        if self._has_failed():
            assert self.steps[name].when in ("failed", "always")

    def _check_again(self, again: tuple[str, ...]) -> None:
        ends = [name for name in again if name in self.loops and self.loops[name] <= set(again)]
        assert set(again) == set().union(*(self.loops[end] for end in ends))
        assert not self._has_failed()
        assert not self.run.cancelled
        assert all(state.is_over for (name, _), state in self.run.states.items() if name in again)

    def _check_undo(self, name: str, move: Move) -> None:
        assert move.ending is not None
        assert all(state.is_over for state in self.run.states.values())
        done = self._last_success(name)
        assert done is not None
        assert self.steps[name].undo is not None
        self.undone.append(done.ended)
        assert self.undone == sorted(self.undone, reverse=True)

    def _check_end(self, move: Move) -> None:
        undos = [state for (_, kind), state in self.run.states.items() if kind is UNDO]
        assert all(state.is_over for state in self.run.states.values())
        assert not move.starts
        assert move.status.is_final
        for name, step in self.steps.items():
            rows = [*self.run.earlier.get((name, STEP), ()), *filter(None, [self.run.states.get((name, STEP))])]
            assert len(rows) <= self._most_rounds(name)
            if not rows or (name, STEP) not in self.run.states:
                assert move.standings[name].status is RunStepStatus.SKIPPED
            if move.ending is not None and step.undo is not None and self._last_success(name):
                assert (name, UNDO) in self.run.states
        if move.status is RunStatus.SUCCEEDED:
            assert not self._has_failed()
            assert not undos
            assert move.error_message is None
        else:
            assert self.run.cancelled or move.error_message is not None
        assert (move.status is RunStatus.CANCELLED) == (move.ending == "cancelled")
        if move.ending == "failed":
            all_undone = bool(undos) and all(state.status is RunStepStatus.SUCCEEDED for state in undos)
            assert (move.status is RunStatus.ROLLED_BACK) == all_undone

    def _check_that_half_of_it_changes_nothing(self, move: Move) -> None:
        """What was superseded before a crash leads to the same starts after it."""
        if move.again is None:
            return
        other = RunDriver(self.run.plan)
        other.states = dict(self.run.states)
        other.earlier = {key: list(states) for key, states in self.run.earlier.items()}
        other.supersede(*((name, STEP) for name in move.again.steps))
        after = other.look()
        assert (after.again, after.starts, after.status) == (None, move.starts, move.status)

    def _something_happens(self) -> None:
        open_ones = sorted(key for key, state in self.run.states.items() if not state.is_over)
        assert open_ones, "nothing begins, and nothing is open"
        if self.chance.random() < 0.02:
            self.run.cancelled = True
            return
        name, kind = key = self.chance.choice(open_ones)
        state = self.run.states[key]
        if state.status is RunStepStatus.PENDING and self.chance.random() < 0.8:
            status = self.chance.choice([RunStepStatus.RUNNING, RunStepStatus.AWAITING_APPROVAL])
            self.run.states[key] = type(state)(state.number, status, task_id=state.task_id)
            return
        weights = {RunStepStatus.SUCCEEDED: 14, RunStepStatus.FAILED: 2, RunStepStatus.CANCELLED: 1}
        status = self.chance.choices(list(weights), list(weights.values()))[0]
        result: dict[str, Any] = {"done": self.chance.random() < 0.5}
        if self.chance.random() < 0.9:
            result["was"] = f"{name} {kind}"
        self.run.end(key, status, result=result if status is RunStepStatus.SUCCEEDED else None)

    def _has_failed(self) -> bool:
        lost = (RunStepStatus.FAILED, RunStepStatus.CANCELLED)
        return any(
            kind is STEP and state.status in lost and not self.steps[name].may_fail
            for (name, kind), state in self.run.states.items()
        )

    def _last_success(self, name: str) -> Any:
        rows = [*self.run.earlier.get((name, STEP), ()), *filter(None, [self.run.states.get((name, STEP))])]
        return next((row for row in reversed(rows) if row.status is RunStepStatus.SUCCEEDED), None)

    def _may_have_used_up_a_loop(self) -> bool:
        """Say whether a loop whose condition does not hold can have had all its rounds, at least those of its end."""
        for end in self.loops:
            step, state = self.steps[end], self.run.states.get((end, STEP))
            assert step.repeat is not None
            rows = len(self.run.earlier.get((end, STEP), ())) + 1
            if (
                state is not None
                and state.status is RunStepStatus.SUCCEEDED
                and state.result["done"] is not True
                and not step.may_fail
                and rows >= step.repeat.at_most
            ):
                return True
        return False

    def _most_rounds(self, name: str) -> int:
        """Return how often a step can run: each loop that has the end of another in it begins that one anew."""
        inside = {name}
        found: set[str] = set()
        while more := {end for end, loop in self.loops.items() if loop & inside} - found:
            found |= more
            inside |= more
        most = 1
        for end in found:
            repeat = self.steps[end].repeat
            assert repeat is not None
            most *= repeat.at_most
        return most

    def _loop(self, step: Step) -> set[str]:
        """Return the steps on the ways from where a loop begins to its end, found by walking all of them."""
        assert step.repeat is not None
        begin, loop = step.repeat.from_step or step.name, {step.name}
        ways: list[list[str]] = [[step.name]]
        while ways:
            way = ways.pop()
            if way[-1] == begin:
                loop |= set(way)
            ways += [[*way, need] for need in self.needs[way[-1]]]
        return loop


@bounded(EXAMPLES)
@given(plans(), CHANCES)
def test_whatever_happens_a_run_comes_to_its_end_and_keeps_its_rules(plan: Plan, chance: Random) -> None:
    Watched(plan, chance).to_the_end()


@bounded(EXAMPLES)
@given(plans(), CHANCES)
def test_a_run_that_is_tried_again_until_all_goes_well_succeeds(plan: Plan, chance: Random) -> None:
    watched = Watched(plan, chance)
    if watched.to_the_end().status is RunStatus.SUCCEEDED:
        return
    run = watched.run
    before = len(run.started)

    run.retry()

    for _ in range(watched.most_events):
        move = run.go()
        if move.is_over:
            break
        key = next(key for key, state in run.states.items() if not state.is_over)
        run.end(key, RunStepStatus.SUCCEEDED, result={"done": True, "was": ""})
    else:
        raise AssertionError("it never ends")
    # What refers to a value of a step whose failure was forgiven cannot begin, however well all goes.
    assert move.status is RunStatus.SUCCEEDED or any(not isinstance(start, Start) for start in run.started[before:])


@bounded(EXAMPLES)
@given(plans(), CHANCES)
def test_where_nothing_counts_as_a_failure_what_begins_does_not_depend_on_the_order(plan: Plan, chance: Random) -> None:
    lenient = plan.model_copy(
        update={"steps": [step.model_copy(update={"may_fail": True, "repeat": None}) for step in plan.steps]}
    )
    ends = {step.name: chance.random() < 0.6 for step in plan.steps}
    run = RunDriver(lenient)
    while not (move := run.go()).is_over:
        key = chance.choice(sorted(key for key, state in run.states.items() if not state.is_over))
        status = RunStepStatus.SUCCEEDED if ends[key[0]] else RunStepStatus.FAILED
        run.end(key, status, result={"done": True} if ends[key[0]] else None)

    expected = _expected(lenient, ends)

    assert move.status is RunStatus.SUCCEEDED
    assert {name: (name, STEP) in run.states for name in expected} == {
        name: end != "skipped" for name, end in expected.items()
    }


def _expected(plan: Plan, ends: dict[str, bool]) -> dict[str, str]:
    """Return how each step ends: looked up by what it needs, over and over until nothing changes any more."""
    names = [step.name for step in plan.steps]
    found: dict[str, str] = defaultdict(str)
    while len(found) < len(names):
        for number, step in enumerate(plan.steps):
            needs = names[max(number - 1, 0) : number] if step.needs is None else step.needs
            if step.name in found or not all(need in found for need in needs):
                continue
            ended = [found[need] for need in needs]
            match step.when:
                case "always" | "not_failed":
                    begins = True
                case "failed":
                    begins = "failed" in ended
                case "succeeded":
                    begins = "skipped" not in ended
                case condition:
                    begins = "skipped" not in ended and condition.equals != ""
                    if begins and str(condition.value).startswith("${steps.") and ended[-1] == "failed":
                        ends = {**ends, step.name: False}  # it refers to a result that there is not
            found[step.name] = ("succeeded" if ends[step.name] else "failed") if begins else "skipped"
    return dict(found)
