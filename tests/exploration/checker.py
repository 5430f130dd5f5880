"""A model checker: breadth first through every state, so that the first violation has the shortest way to it."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
A = TypeVar("A")


class TooManyStates(Exception):
    """The bound on states was reached, so nothing has been proven."""


@dataclass(frozen=True)
class Violation(Generic[S, A]):
    """Which invariants broke, and the shortest way there: each action with the state that it led to."""

    broken: frozenset[str]
    trace: Sequence[tuple[A | None, S]]


@dataclass
class Explored(Generic[S, A]):
    """What was seen. `violation` is None when every invariant held in every state and on every transition; otherwise
    it is one of the shortest, and `broken` names what all of those break.
    """

    states: int = 0
    transitions: int = 0
    depth: int = 0
    actions: dict[str, int] = field(default_factory=dict)
    violation: Violation[S, A] | None = None
    broken: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Checker(Generic[S, A]):
    """What to explore.

    `steps` yields every action possible in a state with the state that follows. `broken_by` names the invariants that a
    step breaks, `broken_in` those that a state breaks. `converged` says whether a state is one in which the system may
    come to rest; from every state one of those must be reachable by actions that are not `is_fault`.
    """

    initial: S
    steps: Callable[[S], Iterable[tuple[A, S]]]
    broken_by: Callable[[S, A, S], frozenset[str]]
    broken_in: Callable[[S], frozenset[str]]
    name: Callable[[A], str]
    converged: Callable[[S], bool]
    is_fault: Callable[[A], bool]
    convergence: str
    at_most: int

    def explore(self) -> Explored[S, A]:
        """Visit every reachable state, or stop behind the shortest violations."""
        found: Explored[S, A] = Explored()
        seen = _Seen[S, A](self.initial)
        queue = deque([0])
        while queue:
            number = queue.popleft()
            if found.violation is not None and seen.depths[number] >= found.depth:
                break
            for action, following in self.steps(seen.states[number]):
                found.transitions += 1
                kind = self.name(action)
                found.actions[kind] = found.actions.get(kind, 0) + 1
                reached, is_new = seen.reach(number, action, following)
                if is_new:
                    queue.append(reached)
                    if reached >= self.at_most:
                        raise TooManyStates(f"more than {self.at_most} states")
                if not self.is_fault(action):
                    seen.healing[reached].append(number)
                broken = self.broken_by(seen.states[number], action, following)
                # A state that is not new was looked at when it was.
                if broken := broken | self.broken_in(following) if is_new else broken:
                    found.broken |= broken
                    if found.violation is None:
                        found.depth = seen.depths[number] + 1
                        found.violation = Violation(broken, [*seen.trace(number), (action, following)])
        found.states = len(seen.states)
        if found.violation is None:
            found.depth = seen.depths[-1]
            self._look_for_stuck(found, seen)
        return found

    def _look_for_stuck(self, found: Explored[S, A], seen: "_Seen[S, A]") -> None:
        stuck = self._first_stuck(seen.states, seen.healing)
        if stuck is not None:
            found.broken = frozenset({self.convergence})
            found.violation = Violation(found.broken, seen.trace(stuck))

    def _first_stuck(self, states: Sequence[S], healing: Sequence[Sequence[int]]) -> int | None:
        """Return the nearest state from which nothing but a further fault leads to rest."""
        good = [self.converged(state) for state in states]
        queue = deque(number for number, is_good in enumerate(good) if is_good)
        while queue:
            for number in healing[queue.popleft()]:
                if not good[number]:
                    good[number] = True
                    queue.append(number)
        return next((number for number, is_good in enumerate(good) if not is_good), None)


class _Seen(Generic[S, A]):
    """The states that were reached, each with the first way to it, and the ways back that are no faults."""

    def __init__(self, initial: S) -> None:
        self.states = [initial]
        self.depths = [0]
        self.healing: list[list[int]] = [[]]
        self._numbers = {initial: 0}
        self._came: list[tuple[int, A | None]] = [(0, None)]

    def reach(self, before: int, action: A, state: S) -> tuple[int, bool]:
        """Return the number of a state, and whether it is new."""
        number = self._numbers.get(state)
        if number is not None:
            return number, False
        number = self._numbers[state] = len(self.states)
        self.states.append(state)
        self.depths.append(self.depths[before] + 1)
        self.healing.append([])
        self._came.append((before, action))
        return number, True

    def trace(self, number: int) -> list[tuple[A | None, S]]:
        """Return the way to a state."""
        way: list[tuple[A | None, S]] = []
        while number:
            before, action = self._came[number]
            way.append((action, self.states[number]))
            number = before
        return [(None, self.states[0]), *reversed(way)]
