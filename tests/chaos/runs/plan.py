"""Which repairs are made, what is killed in the middle of each, and where: decided by a seed."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

STEPS = ("analyze", "patch", "build", "restart", "verify")
ROLLBACK = "rollback"
# How many kills a repair has at most, how likely each after the first is, and how often people are asked.
MOST_KILLS = 3
ANOTHER_KILL = 0.5
SHOWN_FIRST = 0.3


class Change(StrEnum):
    """What the patch of a repair comes to."""

    GOOD = "good"
    BREAKS_BUILD = "breaks the build"
    BREAKS_HEALTH = "breaks the health"
    ENDS_AT_ONCE = "ends at once"


class Victim(StrEnum):
    AGENT = "agent"
    ORCHESTRATOR = "orchestrator"
    DOCKERD = "dockerd"
    BROKER = "broker"


class Moment(StrEnum):
    """When, by a program that a step runs: while it waits for its start, while it runs, while its end is held back;
    or when the state file says that the step has ended, before or while the next one begins.
    """

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Point:
    """A place within a repair. `program` and `word` name what the step runs; both are empty at the end of a step."""

    step: str
    moment: Moment
    program: str = ""
    word: str = ""

    def __str__(self) -> str:
        what = f" {self.program} {self.word}" if self.program else ""
        return f"{self.step}: {self.moment}{what}"


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that is killed at a point, and started again after `pause` seconds."""

    victim: Victim
    point: Point
    pause: float

    @property
    def goes_back(self) -> bool:
        """Whether the rollback comes next: the host itself has suffered."""
        return self.point.step == ROLLBACK or self.victim in (Victim.AGENT, Victim.DOCKERD)

    def __str__(self) -> str:
        return f"{self.victim} at {self.point}, away for {self.pause:.1f} s"


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair, and the kills in it, each of another process. `is_shown`: people agree before the restart."""

    change: Change
    is_shown: bool
    kills: tuple[Kill, ...]

    def __str__(self) -> str:
        gate = "pre-verify" if self.is_shown else "no gate"
        return f"{self.change}, {gate}; " + "; ".join(map(str, self.kills))


# What each step runs.
PROGRAMS: Mapping[str, Sequence[tuple[str, str]]] = {
    "analyze": (("docker", "version"), ("docker-compose", "config"), ("git", "status")),
    "patch": (("git", "worktree"), ("git", "write-tree"), ("git", "diff-index")),
    "build": (("docker", "ps"), ("docker", "image"), ("docker-compose", "build")),
    "restart": (("docker", "ps"), ("git", "rev-parse"), ("docker", "image"), ("docker-compose", "up")),
    "verify": (("docker", "ps"), ("docker", "container")),
    ROLLBACK: (("docker", "image"), ("docker-compose", "up"), ("docker", "ps"), ("git", "worktree")),
}
# What the rollback runs when nothing was restarted.
SHORT_ROLLBACK = (("git", "worktree"),)
# The steps that a repair comes to by itself.
COMES_TO: Mapping[Change, Sequence[str]] = {
    Change.GOOD: STEPS,
    Change.BREAKS_BUILD: (*STEPS[:3], ROLLBACK),
    Change.BREAKS_HEALTH: (*STEPS, ROLLBACK),
    Change.ENDS_AT_ONCE: (*STEPS, ROLLBACK),
}
# Longer than a lease at times.
PAUSES: Mapping[Victim, tuple[float, float]] = {
    Victim.AGENT: (0.2, 3.0),
    Victim.ORCHESTRATOR: (0.2, 8.0),
    Victim.DOCKERD: (0.2, 4.0),
    Victim.BROKER: (0.2, 4.0),
}


def points(steps: Sequence[str], *, is_restarted: bool) -> list[Point]:
    """Return every place in these steps of a repair. `is_restarted`: its rollback has a service to restore."""
    found = []
    for step in steps:
        programs = SHORT_ROLLBACK if step == ROLLBACK and not is_restarted else PROGRAMS[step]
        found += [Point(step, moment, *one) for one in programs for moment in Moment if moment is not Moment.ENDED]
        found.append(Point(step, Moment.ENDED))
    return found


def make_plan(seed: int) -> Iterator[Repair]:
    """Give repairs without an end. Every first victim comes up before any comes up again, and so does every step."""
    chance = random.Random(seed)
    victims: list[Victim] = []
    steps: list[str] = []
    while True:
        victims = victims or chance.sample(list(Victim), len(Victim))
        steps = steps or chance.sample([*STEPS, ROLLBACK], len(STEPS) + 1)
        victim, step = victims.pop(), steps.pop()
        change = chance.choice([one for one in (*Change, Change.GOOD) if step in COMES_TO[one]])
        is_restarted = change is not Change.BREAKS_BUILD
        kills = [_kill(chance, victim, points([step], is_restarted=is_restarted))]
        while len(kills) < MOST_KILLS and chance.random() < ANOTHER_KILL:
            if kills[-1].goes_back:
                is_restarted = is_restarted and kills[-1].point.step in ("restart", "verify", ROLLBACK)
            steps_left = _after(kills[-1], change)
            others = [one for one in Victim if one not in {kill.victim for kill in kills}]
            kills.append(_kill(chance, chance.choice(others), points(steps_left, is_restarted=is_restarted)))
        yield Repair(change, chance.random() < SHOWN_FIRST, tuple(kills))


def _kill(chance: random.Random, victim: Victim, found: Sequence[Point]) -> Kill:
    return Kill(victim, chance.choice(found), round(chance.uniform(*PAUSES[victim]), 2))


def _after(kill: Kill, change: Change) -> Sequence[str]:
    """Return the steps that a repair comes to after a kill."""
    steps = COMES_TO[change]
    left = [ROLLBACK] if kill.goes_back else steps[steps.index(kill.point.step) + 1 :]
    return left or [ROLLBACK]
