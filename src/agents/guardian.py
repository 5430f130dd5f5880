"""Kill the programs of an agent that cannot do it itself, because it is stopped, hangs or was killed.

A process of its own, started by `agents.guard` as a file and with nothing but the standard library, so that it starts
at once and has nothing to hang on. Its input is a pipe from the agent, with a line for every change:

    hold <process group> <start ticks of its leader> <deadline on CLOCK_MONOTONIC>
    done <process group> <start ticks of its leader>

A group that is held is killed at its deadline; a later `hold` replaces the deadline. When the pipe closes, the agent is
gone, and all that is still held is killed at once.
"""

import os
import select
import signal
import time
from contextlib import suppress

LONGEST_SLEEP = 3600.0

Group = tuple[int, int]
"""The id of a process group, and when its leader started: an id alone may by now be somebody else's."""


def take(line: bytes, held: dict[Group, float]) -> None:
    """Take in one line; one that makes no sense is left out."""
    with suppress(ValueError):
        match line.decode().split():
            case ["hold", group, ticks, deadline]:
                held[int(group), int(ticks)] = float(deadline)
            case ["done", group, ticks]:
                held.pop((int(group), int(ticks)), None)
            case _:
                pass


def start_ticks(pid: int) -> int | None:
    """Return when a process started; None when there is none. A zombie still counts: it keeps the id."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - pathlib loads slowly
            text = file.read()
    except OSError:
        return None
    # The name may hold anything, also spaces and brackets; after its closing bracket comes field 3.
    return int(text.rpartition(")")[2].split()[19])


def kill(group: Group) -> None:
    """Kill a group if its leader is the one that was meant; without its leader nothing says whose it is."""
    leader, ticks = group
    if start_ticks(leader) == ticks:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def kill_overdue(held: dict[Group, float]) -> None:
    now = time.monotonic()
    for group in [group for group, deadline in held.items() if deadline <= now]:
        del held[group]
        kill(group)


def guard(pipe: int) -> None:
    """Keep the deadlines until the pipe closes."""
    held: dict[Group, float] = {}
    rest = b""
    while True:
        left = min(held.values(), default=float("inf")) - time.monotonic()
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
    for group in held:
        kill(group)


if __name__ == "__main__":
    # A service manager may signal all processes of the agent at once; this one ends after the agent, never before.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guard(0)
