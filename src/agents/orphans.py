"""Kill what work left running: that of an earlier life of this agent, and that which was stopped."""

from pathlib import Path
from uuid import UUID

from agents.journal import Unended
from agents.process_table import Target, kill_all

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
KILL_SECONDS = 5.0


def boot_id() -> str:
    """Return what tells this run of the host from every other; empty when the host does not say."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def kill_orphans(left: Unended) -> list[int]:
    """Kill what is left of an attempt; return the ids of the processes that were killed."""
    started = left.started
    if started.boot_id != boot_id():
        return []
    groups = tuple((process.pid, process.start_ticks) for process in left.processes)
    return sorted(kill_all([Target(str(started.task_id), started.attempt, groups)], within=KILL_SECONDS))


def kill_runaways(task_id: UUID, attempt: int) -> list[int]:
    """Kill whoever left the process group of an attempt; return the ids of the processes that were killed."""
    return sorted(kill_all([Target(str(task_id), attempt, groups=())], within=KILL_SECONDS))
