"""Which agent gets which of the tasks that wait: a pure decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from heapq import heapify, heappop, heappush
from uuid import UUID

from orchestrator.leases.model import Asker, Line
from orchestrator.leases.rules import REFUSAL_MEMORY, rest_after
from orchestrator.placement.model import Aim
from orchestrator.placement.rules import preference, suits
from orchestrator.tasks.model import Task

# Which agents refused which tasks, and how long ago.
Refusals = Mapping[UUID, Mapping[UUID, timedelta]]


@dataclass(slots=True)
class Paired:
    """`pairs` are in the order of the tasks. `resting` are tasks that only agents which just refused them could take,
    each with how long it waits before it is looked at again.
    """

    pairs: list[tuple[Task, Asker]] = field(default_factory=list)
    resting: dict[UUID, timedelta] = field(default_factory=dict)


def line_of(task: Task) -> Line:
    return Line(task.agent_type, task.work_type, task.aim)


def suitable(line: Line, aim: Aim | None, askers: Sequence[Asker]) -> list[Asker]:
    """Return the agents that may take the tasks of a line; `aim` is its placement constraint, if it has one."""
    return [
        asker
        for asker in askers
        if asker.pool == line.pool
        and asker.takes(line.work_type)
        and (not line.aim or (aim is not None and suits(aim, asker.agent_id, asker.labels)))
    ]


def pair(
    tasks: Sequence[Task], askers: Sequence[Asker], aims: Mapping[str, Aim], refused: Refusals | None = None
) -> Paired:
    """Give the tasks, best first, each to the agent that has most of what it prefers, then to the one with most room.

    Among equals the first of the askers. A task goes first to agents that did not refuse it, then to the one that did
    so longest ago.
    """
    refusals, room = refused or {}, [asker.room for asker in askers]
    position = {id(asker): number for number, asker in enumerate(askers)}
    lines: dict[Line, _Ranked] = {}
    paired = Paired()
    for task in tasks:
        line = line_of(task)
        ranked = lines.get(line)
        if ranked is None:
            aim = aims.get(line.aim)
            fit = [position[id(asker)] for asker in suitable(line, aim, askers)]
            liking = {number: 0 if aim is None else preference(aim, askers[number].labels) for number in fit}
            ranked = lines[line] = _Ranked(liking, room)
        if task.task_id in refusals:
            ago = {number: refusals[task.task_id].get(askers[number].agent_id) for number in ranked.with_room()}
            number = _not_refused_lately(ago, ranked)
            if number is None and ago:
                paired.resting[task.task_id] = min(rest_after(one) for one in ago.values() if one is not None)
        else:
            number = ranked.best()
        if number is not None:
            room[number] -= 1
            paired.pairs.append((task, askers[number]))
    return paired


def _not_refused_lately(ago: Mapping[int, timedelta | None], ranked: "_Ranked") -> int | None:
    fresh = [number for number, one in ago.items() if one is None]
    if fresh:
        return min(fresh, key=ranked.key)
    again = {number: one for number, one in ago.items() if one is not None and one > REFUSAL_MEMORY}
    return max(again, key=lambda number: again[number], default=None)


class _Ranked:
    """The agents of one line, by number. `room` is shared by all lines and changes; a heap entry may be out of date."""

    def __init__(self, liking: Mapping[int, int], room: Sequence[int]) -> None:
        self._liking = liking
        self._room = room
        self._heap = [self.key(number) for number in liking]
        heapify(self._heap)

    def key(self, number: int) -> tuple[int, int, int]:
        """The lowest key goes first."""
        return -self._liking[number], -self._room[number], number

    def with_room(self) -> list[int]:
        return [number for number in self._liking if self._room[number] > 0]

    def best(self) -> int | None:
        """Return the best agent that has room; its room is about to be one less."""
        while self._heap:
            key = heappop(self._heap)
            number = key[2]
            if self._room[number] <= 0:
                continue
            now = self.key(number)
            if now != key:
                heappush(self._heap, now)
                continue
            heappush(self._heap, (now[0], now[1] + 1, number))
            return number
        return None
