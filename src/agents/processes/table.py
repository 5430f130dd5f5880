"""Find the processes of an attempt in /proc, and kill exactly those. Elsewhere it finds nothing.

An id alone proves nothing, because the kernel gives it to another process once it is free. A group is ours when its
leader started when it was noted, or, once the leader is gone, when a member carries the ids of the attempt in its
environment: as long as a group has members its id is not given away. A process that left the group, but carries the
ids, is ours, too. Every process is killed through a handle that was taken before it was looked at, so that the one
killed is the one that was seen.

Nothing but the standard library: the guardian, which loads nothing else, shares it.
"""

import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import NamedTuple

PROC = "/proc"
# The variables by which a program, and what it starts, is known to belong to an attempt.
TASK_VARIABLE, ATTEMPT_VARIABLE = "CHIFFON_TASK_ID", "CHIFFON_ATTEMPT"
LOOK_SECONDS = 0.02
ZOMBIE = "Z"
# The kernel gives ids below 2^22.
LONGEST_ID = 7
# Whether this kernel lists the children of a process.
LISTS_CHILDREN = os.path.exists(f"{PROC}/thread-self/children")  # noqa: PTH110 - pathlib loads slowly


class Seen(NamedTuple):
    """What the kernel says of a process: see proc(5), `stat`."""

    pid: int
    state: str
    parent: int
    group: int
    start_ticks: int


class Target(NamedTuple):
    """What belongs to one attempt: its ids, and its groups as (leader, when the leader started)."""

    task_id: str
    attempt: int
    groups: tuple[tuple[int, int], ...]


def are_shown() -> bool:
    """Return whether this host shows its processes."""
    return os.path.isdir(f"{PROC}/self")  # noqa: PTH112 - pathlib loads slowly


def look_at(pid: int) -> Seen | None:
    """Return what a process is; None when there is none. A zombie still counts: it keeps the id."""
    # The name may hold anything, also spaces and brackets; after its closing bracket comes field 3.
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    try:
        state, parent, group, ticks = fields[0], fields[1], fields[2], int(fields[19])
    except (IndexError, ValueError):  # gone, or not what the kernel writes
        return None
    if not _is_id(parent) or not _is_id(group):
        return None
    return Seen(pid, state.decode(errors="replace"), parent=int(parent), group=int(group), start_ticks=ticks)


def ticks_of(pid: int) -> int:
    """Return when a process started by the kernel's count; 0 when there is none, or where it cannot be seen."""
    seen = look_at(pid)
    return 0 if seen is None else seen.start_ticks


def children_of(pid: int) -> list[int]:
    """Return the ids of the children of a process, of all its threads."""
    if not LISTS_CHILDREN:
        return [seen.pid for seen in _everyone() if seen.parent == pid]
    try:
        threads = os.listdir(f"{PROC}/{pid}/task")  # noqa: PTH208 - pathlib loads slowly
    except OSError:  # gone
        return []
    words = [word for thread in threads for word in _read(pid, f"task/{thread}/children").split()]
    return [int(word) for word in words if _is_id(word)]


def descendants(pid: int) -> list[Seen]:
    """Return all processes below one."""
    found: dict[int, Seen] = {}
    parents = [pid]
    for parent in parents:  # grows while it is read
        # An id may be given anew while this reads, and must not lead in a circle.
        new = [child for child in children_of(parent) if child not in found and child != pid]
        below = {child: seen for child in new if (seen := look_at(child)) is not None}
        found |= below
        parents += below
    return list(found.values())


def kill_tree(children: Collection[int]) -> bool:
    """Kill children of this process with all that is below them; return whether any of it still ran.

    They must not be reaped before nothing runs: until then each holds its id, and its place among the processes that
    its user may have, so that nothing which is forked meanwhile gets them.
    """
    running = [
        seen
        for child in children
        for seen in (look_at(child), *descendants(child))
        if seen is not None and seen.state != ZOMBIE
    ]
    for seen in running:
        # A group dies at once, so one that forks within it is never too fast.
        if seen.pid in children and seen.group != os.getpgrp():
            with suppress(OSError):
                os.killpg(seen.group, signal.SIGKILL)
    for seen in running:
        _kill(seen)
    return bool(running)


def kill_all(targets: Collection[Target], *, within: float) -> set[int]:
    """Kill what belongs to any of the targets; return the ids of the processes that were killed.

    It looks again until it has twice found none, for at most `within` seconds: a process that forks while it is
    killed leaves a child, and one that is just becoming another program has no environment for a moment.
    """
    killed: set[int] = set()
    until = time.monotonic() + within
    empty_looks = 0
    while targets and empty_looks < 2 and time.monotonic() < until:
        found = _find(targets)
        killed.update(seen.pid for seen in found if _kill(seen))
        empty_looks = 0 if found else empty_looks + 1
        time.sleep(LOOK_SECONDS)
    return killed


def _find(targets: Collection[Target]) -> list[Seen]:
    marks = [(target, _marks(target)) for target in targets]
    alive = [seen for seen in _everyone() if seen.state != ZOMBIE]
    carriers: dict[int, Target] = {}
    for seen in alive:
        variables = frozenset(_read(seen.pid, "environ").split(b"\0"))
        for owner, mark in marks:
            if mark <= variables:
                carriers[seen.pid] = owner
    groups = {leader for target in targets for leader, ticks in target.groups if _is_leader(leader, ticks)}
    for seen in alive:
        target = carriers.get(seen.pid)
        if target is not None and seen.group in (leader for leader, _ in target.groups):
            groups.add(seen.group)
    return [seen for seen in alive if (seen.group in groups or seen.pid in carriers) and seen.group != os.getpgrp()]


def _is_leader(pid: int, start_ticks: int) -> bool:
    now = look_at(pid)
    return now is not None and now.start_ticks == start_ticks


def _marks(target: Target) -> frozenset[bytes]:
    """Return the variables that show that a process belongs to a target.

    An environment may hold anything, also of processes of other users. So it is compared with these bytes and never
    read as text or numbers.
    """
    return frozenset((f"{TASK_VARIABLE}={target.task_id}".encode(), f"{ATTEMPT_VARIABLE}={target.attempt}".encode()))


def _is_id(word: bytes) -> bool:
    return word.isdigit() and len(word) <= LONGEST_ID


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
    with suppress(OSError):  # no /proc
        for name in os.listdir(PROC):  # noqa: PTH208 - pathlib loads slowly
            if _is_id(os.fsencode(name)) and (seen := look_at(int(name))) is not None:
                yield seen


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"{PROC}/{pid}/{name}", "rb") as file:  # noqa: PTH123 - pathlib loads slowly
            return file.read()
    except OSError:  # gone, or of another user
        return b""
