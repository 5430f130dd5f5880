"""Kill the programs of an agent that cannot do it itself, because it is stopped, hangs or was killed.

A process of its own, started by `agents.guard` with nothing but the standard library, so that it starts at once and has
nothing to hang on. Its input is a pipe from the agent, with a line for every change:

    hold <process group> <start ticks of its leader> <deadline on CLOCK_MONOTONIC> <task id> <attempt>
    done <process group> <start ticks of its leader>

What is held is killed at its deadline, with all that carries the ids of the attempt; a later `hold` replaces it.
When the pipe closes, the agent is gone, and all that is still held is killed at once.
"""

import os
import select
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple

from agents.process_table import Target, kill_all, look_at

LONGEST_SLEEP = 3600.0
# How long it goes on looking for what it kills: at a deadline others may be near theirs, at the end nobody waits.
OVERDUE_SECONDS = 0.5
END_SECONDS = 5.0

Group = tuple[int, int]
"""The id of a process group, and when its leader started: an id alone may by now be somebody else's."""


class Held(NamedTuple):
    deadline: float
    task_id: str
    attempt: int


def take(line: bytes, held: dict[Group, Held]) -> None:
    """Take in one line; one that makes no sense is left out."""
    with suppress(ValueError):
        match line.decode().split():
            case ["hold", group, ticks, deadline, task_id, attempt]:
                held[int(group), int(ticks)] = Held(float(deadline), task_id, int(attempt))
            case ["done", group, ticks]:
                held.pop((int(group), int(ticks)), None)
            case _:
                pass


def kill(doomed: dict[Group, Held], *, within: float) -> None:
    """Kill groups and whoever left them: first, without a look around, those whose leader is the one that was meant."""
    for leader, ticks in doomed:
        seen = look_at(leader)
        if seen is not None and seen.start_ticks == ticks:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)
    kill_all(_targets(doomed), within=within)


def _targets(doomed: dict[Group, Held]) -> Collection[Target]:
    return [Target(held.task_id, held.attempt, (group,)) for group, held in doomed.items()]


def kill_overdue(held: dict[Group, Held]) -> None:
    now = time.monotonic()
    overdue = {group: one for group, one in held.items() if one.deadline <= now}
    for group in overdue:
        del held[group]
    kill(overdue, within=OVERDUE_SECONDS)


def guard(pipe: int) -> None:
    """Keep the deadlines until the pipe closes."""
    held: dict[Group, Held] = {}
    rest = b""
    while True:
        first = min((one.deadline for one in held.values()), default=float("inf"))
        left = first - time.monotonic()
        ready, _, _ = select.select([pipe], [], [], max(0.0, min(left, LONGEST_SLEEP)))
        if not ready:
            # Only when all lines are read: after a pause of the whole host a renewal may be among them.
            kill_overdue(held)
            continue
        data = os.read(pipe, select.PIPE_BUF)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            take(line, held)
    kill(held, within=END_SECONDS)


def main() -> None:
    # A service manager may signal all processes of the agent at once; this one ends after the agent, never before.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guard(0)
