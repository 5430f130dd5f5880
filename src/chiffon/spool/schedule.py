"""Which files may be worked on now: the oldest first, one of an ordering key at a time, none during its back-off."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from common.backoff import exponential

FIRST_PAUSE = timedelta(milliseconds=500)
LONGEST_PAUSE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that waits. `key` None is that of no other file."""

    name: str
    key: str | None


@dataclass(slots=True)
class Schedule:
    """What is being worked on, and what failed for reasons that pass. Times are seconds of any one clock."""

    limit: int
    _running: dict[str, str | None] = field(default_factory=dict)
    _failures: dict[str, int] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)

    @property
    def running(self) -> frozenset[str]:
        return frozenset(self._running)

    @property
    def has_room(self) -> bool:
        return len(self._running) < self.limit

    def choose(self, candidates: Iterable[Candidate], *, now: float) -> list[Candidate]:
        """Return those that may start, of candidates in their order; one that must wait holds up those of its key."""
        held_up = {key for key in self._running.values() if key is not None}
        chosen: list[Candidate] = []
        for candidate in candidates:
            if len(self._running) + len(chosen) >= self.limit:
                break
            if candidate.name in self._running or candidate.key in held_up:
                continue
            if now >= self._not_before.get(candidate.name, now):
                chosen.append(candidate)
            if candidate.key is not None:
                held_up.add(candidate.key)
        return chosen

    def started(self, candidate: Candidate) -> None:
        self._running[candidate.name] = candidate.key

    def ended(self, name: str) -> None:
        """It is done with, one way or the other."""
        self._running.pop(name, None)
        self._failures.pop(name, None)
        self._not_before.pop(name, None)

    def postponed(self, name: str, *, now: float) -> timedelta:
        """It failed for a reason that passes; returns how long it waits, longer each time."""
        self._running.pop(name, None)
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        pause = exponential(failures, base=FIRST_PAUSE, cap=LONGEST_PAUSE)
        self._not_before[name] = now + pause.total_seconds()
        return pause
