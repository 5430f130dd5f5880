"""The checker itself: it visits everything, takes the shortest way, and sees what can never come to rest."""

from collections.abc import Callable, Iterable

import pytest

from tests.exploration.checker import Checker, TooManyStates

Steps = Callable[[int], Iterable[tuple[str, int]]]


def make_checker(
    steps: Steps, *, bad: int | None = None, rest: frozenset[int], at_most: int = 1000
) -> Checker[int, str]:
    return Checker(
        initial=0,
        steps=steps,
        broken_by=lambda before, action, after: frozenset({"worse"}) if action == "worsen" else frozenset(),
        broken_in=lambda state: frozenset({"bad"}) if state == bad else frozenset(),
        name=lambda action: action,
        converged=lambda state: state in rest,
        is_fault=lambda action: action == "fault",
        convergence="rest",
        at_most=at_most,
    )


def forwards(state: int) -> Iterable[tuple[str, int]]:
    return [(name, state + width) for name, width in (("one", 1), ("two", 2)) if state + width <= 10]


def test_it_visits_every_state_and_counts_the_steps() -> None:
    found = make_checker(forwards, rest=frozenset({10})).explore()

    assert (found.states, found.transitions, found.violation) == (11, 19, None)
    assert found.actions == {"one": 10, "two": 9}


def test_it_takes_the_shortest_way_to_a_violation() -> None:
    found = make_checker(forwards, bad=6, rest=frozenset({10})).explore()

    assert found.violation is not None
    assert [state for _, state in found.violation.trace] == [0, 2, 4, 6]
    assert found.violation.broken == {"bad"}


def test_it_sees_a_step_that_breaks_something_also_between_states_that_it_knows() -> None:
    ways = {0: [("go", 1)], 1: [("worsen", 0), ("go", 2)], 2: []}

    found = make_checker(ways.__getitem__, rest=frozenset({2})).explore()

    assert found.violation is not None
    assert [state for _, state in found.violation.trace] == [0, 1, 0]
    assert found.broken == {"worse"}


def test_it_sees_a_state_that_only_a_fault_leads_out_of() -> None:
    ways = {0: [("go", 1), ("go", 2)], 1: [("fault", 3)], 2: [("go", 3)], 3: []}

    found = make_checker(ways.__getitem__, rest=frozenset({3})).explore()

    assert found.violation is not None
    assert found.violation.broken == {"rest"}
    assert found.violation.trace[-1] == ("go", 1)


def test_it_does_not_pretend_to_have_seen_everything() -> None:
    with pytest.raises(TooManyStates):
        make_checker(lambda state: [("on", state + 1)], rest=frozenset()).explore()
