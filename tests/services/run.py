"""The directory of one test run, and the guard that removes it with every process that the run started.

The directory is the TMPDIR of the tests and of everything that they start. All workers of a run share it.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

VARIABLE = "CHIFFON_TEST_RUN"
GUARD = Path(__file__).with_name("guard.py")
GUARD_SECONDS = 300
UNDO = "undo.jsonl"


def begin() -> subprocess.Popen[bytes] | None:
    """Make the directory and start its guard; return None in a worker, which shares those of its controller."""
    if VARIABLE in os.environ:
        return None
    # A shell ignores SIGINT for what it runs in the background, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Short: the paths of Unix sockets end after 107 bytes. Searchable: PostgreSQL runs as another user under root.
    root = Path(tempfile.mkdtemp(prefix="ct-")).resolve()
    root.chmod(0o711)
    os.environ[VARIABLE] = os.environ["TMPDIR"] = str(root)
    tempfile.tempdir = None
    return subprocess.Popen([sys.executable, str(GUARD), str(root)], stdin=subprocess.PIPE, start_new_session=True)


def end(guard: subprocess.Popen[bytes]) -> int:
    """Have the guard clean up as it would after a crash, and return how many processes were left running."""
    assert guard.stdin is not None
    guard.stdin.close()
    return guard.wait(GUARD_SECONDS)


def guarded(work: Callable[[str], bool]) -> int:
    """Do work in the directory of a run, with the directory outside of it; return an exit status.

    It is 1 when the work says that something is wrong, or when it has left a process.
    """
    outside = tempfile.gettempdir()
    guard = begin()
    try:
        is_wrong = work(outside)
    finally:
        left = 0 if guard is None else end(guard)
    return int(is_wrong or left > 0)


def root() -> Path:
    """Return the directory of this run."""
    return Path(os.environ[VARIABLE])


def undo(*command: str) -> None:
    """Have the guard run a command at the end, for what is neither a process nor a file: a container, a network."""
    with (root() / UNDO).open("a") as commands:
        commands.write(json.dumps(command) + "\n")


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Let one worker of the run at a time into a block of this name."""
    with (root() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
