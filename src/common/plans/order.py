"""In which order the steps of a plan can run: what each waits for, what comes before it, and its loops.

Sets of steps are integers with a bit for each: plans may have every step need all before it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from common.errors import InvalidField
from common.plans.model import Plan, Step

MOST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Order:
    """Steps by their names, each behind all that it waits for.

    `needs` are those that a step names, `waits` also the ends of the loops that one of them is in and the step is not:
    what is outside a loop does not see its rounds. `loops` are the steps of each loop, by the step that repeats it.
    """

    steps: Mapping[str, Step]
    places: Mapping[str, str]
    needs: Mapping[str, Sequence[str]]
    waits: Mapping[str, Sequence[str]]
    loops: Mapping[str, Sequence[str]]
    _bits: Mapping[str, int]
    _before: Mapping[str, int]
    _around: Mapping[str, int]

    def is_before(self, step: str, other: str) -> bool:
        """Say whether another step needs one, or needs what needs it."""
        return bool(self._bits[step] & self._before[other])

    def are_in_a_loop(self, step: str, other: str) -> bool:
        """Say whether there is a loop that has both steps."""
        return bool(self._around[step] & self._around[other])

    def around(self, step: str) -> list[str]:
        """Return the steps that repeat the loops that a step is in."""
        return [end for end in self.loops if self._bits[end] & self._around[step]]


def order_of(plan: Plan) -> Order:
    """Return the order of a plan's steps. Raises `InvalidField` where there is none."""
    places = {step.name: f"steps[{number}]" for number, step in enumerate(plan.steps)}
    steps = {step.name: step for step in plan.steps}
    needs = _needs(plan, places)
    names = _sorted(needs, places, "so none of them could begin")
    bits = {name: 1 << number for number, name in enumerate(names)}
    before: dict[str, int] = {}
    for name in names:
        before[name] = _union(before[need] | bits[need] for need in needs[name])
    loops = {name: _loop(steps[name], names, places, bits, before) for name in names if steps[name].repeat is not None}
    around = dict.fromkeys(names, 0)
    for end, members in loops.items():
        for member in members:
            around[member] |= bits[end]
    waits = {name: [*needs[name], *_ends(name, needs[name], loops, bits, around)] for name in names}
    ordered = _sorted(waits, places, "since what is outside a loop waits for its end")
    return Order(
        steps={name: steps[name] for name in ordered},
        places=places,
        needs=needs,
        waits={name: waits[name] for name in ordered},
        loops=loops,
        _bits=bits,
        _before=before,
        _around=around,
    )


def _needs(plan: Plan, places: Mapping[str, str]) -> dict[str, Sequence[str]]:
    needs: dict[str, Sequence[str]] = {}
    previous: list[str] = []
    for number, step in enumerate(plan.steps):
        if step.name in needs:
            raise InvalidField(f"steps[{number}].name", f"{step.name!r} is the name of an earlier step, too")
        for at, need in enumerate(step.needs or ()):
            if need not in places:
                raise InvalidField(f"steps[{number}].needs[{at}]", f"{need!r} is no step of this plan")
        needs[step.name] = previous if step.needs is None else list(dict.fromkeys(step.needs))
        previous = [step.name]
    return needs


def _loop(
    step: Step, names: Sequence[str], places: Mapping[str, str], bits: Mapping[str, int], before: Mapping[str, int]
) -> list[str]:
    """Return the steps on all ways from where a loop begins to the step that repeats it, in their order."""
    begin = None if step.repeat is None else step.repeat.from_step
    if begin is None or begin == step.name:
        return [step.name]
    if begin not in bits or not bits[begin] & before[step.name]:
        raise InvalidField(
            f"{places[step.name]}.repeat.from",
            f"{begin!r} is no step that {step.name!r} needs, or that one of those needs; a loop begins with such a one",
        )
    between = [name for name in names if bits[name] & before[step.name] and bits[begin] & before[name]]
    return [begin, *between, step.name]


def _ends(
    name: str,
    needs: Sequence[str],
    loops: Mapping[str, Sequence[str]],
    bits: Mapping[str, int],
    around: Mapping[str, int],
) -> list[str]:
    left = _union(around[need] for need in needs) & ~around[name]
    return [end for end in loops if bits[end] & left and end not in needs] if left else []


def _sorted(waits: Mapping[str, Sequence[str]], places: Mapping[str, str], why: str) -> list[str]:
    try:
        return list(TopologicalSorter(waits).static_order())
    except CycleError as error:
        circle = error.args[1][:0:-1]  # each is needed by the one before it
    numbers = {name: number for number, name in enumerate(places)}
    first = min(range(len(circle)), key=lambda at: numbers[circle[at]])
    names = [*circle[first:], *circle[:first], circle[first]]
    shown = names if len(names) <= MOST_SHOWN else [*names[: MOST_SHOWN - 2], "…", names[-1]]
    raise InvalidField(
        f"{places[names[0]]}.needs", f"{' → '.join(shown)} is a circle: each waits for the one behind it, {why}"
    )


def _union(sets: Iterable[int]) -> int:
    found = 0
    for one in sets:
        found |= one
    return found
