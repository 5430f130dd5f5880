"""End what an earlier life of this agent left running.

Its keepers clean up by themselves as soon as that agent is gone, so this waits for them. Only when a keeper was killed
together with its guardian is anything left, and it is found by the journal and by the ids of the attempt.
"""

import os
import signal
import time
from contextlib import suppress

from agents.disk.journal import ProcessStarted, Unended
from agents.processes.keepers import KEEPER_SECONDS
from agents.processes.life import host_boot_id
from agents.processes.table import LOOK_SECONDS, ZOMBIE, Target, kill_all, look_at

KILL_SECONDS = 5.0


def end_orphans(left: Unended) -> list[int]:
    """Return when nothing of an attempt is left, with the ids of the processes that had to be killed for that."""
    started = left.started
    if started.host_boot_id != host_boot_id():
        return []
    until = time.monotonic() + KEEPER_SECONDS
    while (keepers := [one for one in left.processes if _is_kept(one)]) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    for one in keepers:  # it hangs; its guardian kills what it kept
        with suppress(ProcessLookupError, PermissionError):
            os.kill(one.keeper_pid, signal.SIGKILL)
    groups = tuple((process.pid, process.start_ticks) for process in left.processes)
    killed = kill_all([Target(str(started.task_id), started.attempt, groups)], within=KILL_SECONDS)
    return sorted(killed | {one.keeper_pid for one in keepers})


def _is_kept(process: ProcessStarted) -> bool:
    seen = look_at(process.keeper_pid) if process.keeper_pid else None
    return seen is not None and seen.state != ZOMBIE and seen.start_ticks == process.keeper_ticks
