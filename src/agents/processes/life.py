"""Tell one process of the agent from every other, and say whether that which started an attempt still runs."""

import os
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from agents.disk.journal import Started
from agents.processes.table import ZOMBIE, look_at

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")


class Life(NamedTuple):
    """A process: the run of its kernel, its namespace of process ids, its id, and when it started."""

    host_boot_id: str
    pid_namespace: int
    pid: int
    start_ticks: int


class Fate(StrEnum):
    """Of the process that started an attempt. Unknown: it was that of another host, or of another container."""

    RUNS = "runs"
    OVER = "over"
    UNKNOWN = "unknown"


def own_life() -> Life:
    """Return what tells this process from every other."""
    seen = look_at(os.getpid())
    return Life(host_boot_id(), _pid_namespace(), os.getpid(), 0 if seen is None else seen.start_ticks)


def host_boot_id() -> str:
    """Return what tells this run of the host from every other; empty when the host does not say."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def fate_of(started: Started) -> Fate:
    """Say whether the process that started an attempt still runs; earlier versions noted too little to doubt it."""
    if not started.agent_ticks:
        return Fate.OVER
    here = own_life()
    if (started.host_boot_id, started.pid_namespace) != (here.host_boot_id, here.pid_namespace):
        return Fate.UNKNOWN
    seen = look_at(started.agent_pid)
    runs = seen is not None and seen.state != ZOMBIE and seen.start_ticks == started.agent_ticks
    return Fate.RUNS if runs else Fate.OVER


def _pid_namespace() -> int:
    try:
        return PID_NAMESPACE.stat().st_ino
    except OSError:
        return 0
