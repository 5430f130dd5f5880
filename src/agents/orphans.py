"""Find and kill what an earlier life of this agent left running. Reads /proc; elsewhere it finds nothing.

An id alone proves nothing, because the kernel gives it to somebody else once it is free. A group is ours when its
leader started when the journal says, or, once the leader is gone, when a member carries the ids of the attempt in its
environment: as long as a group has members its id is not given away. Every single process is killed through a
handle that was taken before it was looked at, so that the one killed is the one that was seen.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agents.journal import Unended

PROC = Path("/proc")
KILL_SECONDS = 5.0
LOOK_SECONDS = 0.02
ZOMBIE = "Z"


class Seen(NamedTuple):
    """What the kernel says of a process: see proc(5), `stat`."""

    pid: int
    state: str
    group: int
    start_ticks: int


def boot_id() -> str:
    """Return what tells this run of the host from every other; empty when the host does not say."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def look_at(pid: int) -> Seen | None:
    """Return what a process is; None when there is none."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name may hold anything, also spaces and brackets; after its closing bracket comes field 3.
    fields = text.rpartition(")")[2].split()
    return Seen(pid, state=fields[0], group=int(fields[2]), start_ticks=int(fields[19]))


def kill_orphans(left: Unended) -> list[int]:
    """Kill what is left of an attempt; return the ids of the processes that were killed."""
    if left.started.boot_id != boot_id():
        return []
    killed: set[int] = set()
    until = time.monotonic() + KILL_SECONDS
    empty_looks = 0
    # Twice empty: a process that forks while it is killed leaves a child, and one that is just becoming another program
    # has no environment for a moment.
    while empty_looks < 2 and time.monotonic() < until:
        targets = _orphans(left)
        killed.update(target.pid for target in targets if _kill(target))
        empty_looks = 0 if targets else empty_looks + 1
        time.sleep(LOOK_SECONDS)
    return sorted(killed)


def _orphans(left: Unended) -> list[Seen]:
    everyone = [seen for seen in _everyone() if seen.state != ZOMBIE]
    groups = {process.pid for process in left.processes if _is_ours(process.pid, process.start_ticks, everyone, left)}
    if not left.processes:  # killed between the start of the process and the line about it
        groups = {seen.group for seen in everyone if _carries_ids(seen.pid, left)}
    return [seen for seen in everyone if seen.group in groups and seen.group != os.getpgrp()]


def _is_ours(leader: int, start_ticks: int, everyone: list[Seen], left: Unended) -> bool:
    members = [seen for seen in everyone if seen.group == leader]
    now = look_at(leader)
    if now is not None and now.start_ticks == start_ticks:
        return True
    return any(_carries_ids(seen.pid, left) for seen in members)


def _carries_ids(pid: int, left: Unended) -> bool:
    try:
        variables = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, or somebody else's
        return False
    started = left.started
    return (
        f"CHIFFON_TASK_ID={started.task_id}".encode() in variables
        and f"CHIFFON_ATTEMPT={started.attempt}".encode() in variables
    )


def _kill(target: Seen) -> bool:
    try:
        handle = os.pidfd_open(target.pid)
    except OSError:
        return False
    try:
        now = look_at(target.pid)
        if now is None or (now.group, now.start_ticks) != (target.group, target.start_ticks):
            return False
        with suppress(OSError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            return True
        return False
    finally:
        os.close(handle)


def _everyone() -> Iterator[Seen]:
    for entry in PROC.iterdir() if PROC.exists() else ():
        if entry.name.isdigit() and (seen := look_at(int(entry.name))) is not None:
            yield seen
