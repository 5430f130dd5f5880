"""Who is alive: each broker holds a lock on a file of its own, and the kernel lets go of it when the process dies.

Blocking. The locks are those of flock(2): they need a local file system, and are not inherited by programs that are
started.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

LOCK = ".lock"


class FileSession:
    """One broker's presence in the root; `name` is in the names of its folders and files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = uuid4().hex
        # Locked before it gets its name, so that nobody ever finds it without its lock.
        draft = folder / f".{self.name}"
        self._handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        draft.rename(folder / f"{self.name}{LOCK}")

    def close(self) -> None:
        """Leave; whatever is still held under this name now belongs to a dead session."""
        (self._folder / f"{self.name}{LOCK}").unlink(missing_ok=True)
        os.close(self._handle)

    def vanish(self) -> None:
        """Let go of the lock without leaving, as when the process is killed."""
        os.close(self._handle)

    def touch(self) -> None:
        """Raise `OSError` when the root is gone or cannot be written to."""
        os.utime(self._folder / f"{self.name}{LOCK}")


def dead_sessions(folder: Path, *, mine: str) -> list[str]:
    """Return the sessions whose process is gone without having left."""
    names = (path.name.removesuffix(LOCK) for path in folder.glob(f"*{LOCK}"))
    return [name for name in names if name != mine and not is_alive(folder, name)]


def is_alive(folder: Path, name: str) -> bool:
    """Say whether a session's lock is held; a session without a lock file has left."""
    try:
        handle = os.open(folder / f"{name}{LOCK}", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at once do not take each other for the owner.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def forget_session(folder: Path, name: str) -> None:
    """Remove the lock file of a dead session, once nothing of it is left."""
    with suppress(FileNotFoundError):
        (folder / f"{name}{LOCK}").unlink()
