"""The keepers that start the programs of these tests."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from agents.processes.keepers import Keeper, Keepers, Launch
from agents.processes.program import PR_SET_CHILD_SUBREAPER, prctl
from agents.processes.table import children_of, kill_tree

Begin = Callable[..., Awaitable[Keeper]]

# A child in the group of the program, one that left it, and one that left it without a parent and an environment.
FAMILY = "sleep 600 & setsid sleep 600 & setsid -f env -i /bin/sleep 600; wait"
# How long what has been told to end may take to be gone.
END_SECONDS = 5.0


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fail when a process that was started meanwhile is left at the end, and end it, however it has escaped."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    _adopt(True)
    try:
        yield
    finally:
        psutil.wait_procs(_living(before), timeout=END_SECONDS)
        names = [_name(child) for child in _living(before)]
        # As children of this process, which are not collected meanwhile, they cannot fork faster than they are killed.
        while kill_tree([child for child in children_of(os.getpid()) if child not in before]):
            os.sched_yield()
        _living(before)
        _adopt(False)
    assert names == []


def _adopt(is_on: bool) -> None:
    """Have what loses its parent become a child of this process, which finds it then."""
    if prctl is not None:
        prctl(PR_SET_CHILD_SUBREAPER, int(is_on), 0, 0, 0)


def _living(before: set[int]) -> list[psutil.Process]:
    """Return what is new and lives; what has ended is collected."""
    living = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, ChildProcessError):
            if child.pid in before:
                continue
            if child.status() != psutil.STATUS_ZOMBIE:
                living.append(child)
            elif child.ppid() == os.getpid():
                os.waitpid(child.pid, os.WNOHANG)
    return living


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:100]}"
    return str(process.pid)


@pytest.fixture
def keepers() -> Iterator[Keepers]:
    with nothing_left(), Keepers() as keepers:
        yield keepers


@pytest.fixture
async def begin(keepers: Keepers) -> AsyncIterator[Begin]:
    """Have a script started by a keeper, which is closed at the end."""
    with ExitStack() as stack, Path(os.devnull).open("r+b") as nothing:

        async def begun(script: str = FAMILY, **changes: object) -> Keeper:
            argv = ["/bin/sh", "-c", script]
            launch = Launch(["/bin/sh"], argv, {"PATH": "/usr/bin:/bin"}, "/", **changes)  # type: ignore[arg-type]
            keeper = await keepers.start(launch, [nothing.fileno()] * 3)
            stack.callback(keeper.close)
            return keeper

        yield begun
