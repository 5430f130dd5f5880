"""Kill a process that keeps and forgets files before each call of the system that it makes: `python -m … FOLDER`.

Between two of them nothing changes on the disk. For the n-th call the spool is in FOLDER/n, and FOLDER/n.said holds
what the process could still say.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from common.redaction.values import Values
from tests.unit.agents.artifacts.making import keep, make_owner, make_spool

# What is kept, and what is forgotten afterwards.
KEPT = [("a.txt", b"the same in two files\n"), ("b/a.txt", b"the same in two files\n")]
FORGOTTEN = "a.txt"


class Killer:
    """Counts calls of the system, and kills this process before one of them."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, _frame: FrameType, event: str, function: Any) -> None:
        # `os`, and the methods of open files.
        if event == "c_call" and (function.__module__ == "posix" or type(function.__self__).__module__ == "_io"):
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)


def live(folder: Path) -> None:
    """What a life of an agent does; each thing that it has done is said."""
    said = os.open(folder.with_suffix(".said"), os.O_WRONLY | os.O_CREAT)
    kept = make_spool(folder)
    keys = {}
    for name, content in KEPT:
        keys[name] = keep(kept, content, folder, name=name, owner=make_owner(), values=Values()).key
        os.write(said, f"kept {name}\n".encode())
    os.write(said, b"forgetting\n")
    kept.forget([keys[FORGOTTEN]])
    os.write(said, b"over\n")


def main(root: Path) -> None:
    for number in range(100_000):
        folder = root / str(number)
        folder.mkdir()
        pid = os.fork()
        if pid == 0:
            try:
                # What a process that is killed has written is there all the same.
                os.fsync = lambda _: None  # type: ignore[assignment]
                sys.setprofile(Killer(number))
                live(folder)
                sys.setprofile(None)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
