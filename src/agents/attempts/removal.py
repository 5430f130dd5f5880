"""Remove a directory with all in it, however deep it is and whatever a program did, or still does, to it.

A program that was left running may put a link in the place of a directory at any moment. So no link is ever followed:
what is opened, moved, unlocked or removed is inside the directory, or an error.
"""

import os
import stat
import sys
from collections import deque
from contextlib import suppress
from itertools import count
from pathlib import Path
from uuid import uuid4

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def remove_tree(top: Path) -> None:
    """Remove as much as can be removed; raises the first `OSError` if that is not all.

    A program may have put a link or a file in the place of the directory: that is removed, and not what it leads to.
    """
    with suppress(OSError):
        top.rmdir()
        return
    if not stat.S_ISDIR(top.lstat().st_mode):
        top.unlink()
        return
    _unlock(top)
    root = os.open(top, FOLDER)
    try:
        removal = _Removal(root)
        removal.run()
    finally:
        os.close(root)
    if removal.problem is not None:
        raise removal.problem
    top.rmdir()


class _Removal:
    """Empties a directory. It does not descend into others but brings them up, one after the other.

    So neither the stack nor the length of a path nor the number of open files bounds the depth.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._folders: deque[str] = deque()
        tag = uuid4().hex
        self._names = (f"{tag}-{number}" for number in count())
        self.problem: OSError | None = None

    def run(self) -> None:
        self._empty(self._root)
        while self._folders:
            name = self._folders.popleft()
            try:
                folder = os.open(name, FOLDER, dir_fd=self._root)
                try:
                    self._empty(folder)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=self._root)
            except OSError as error:
                self.problem = self.problem or error

    def _empty(self, folder: int) -> None:
        with os.scandir(folder) as entries:
            listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in listed:
            try:
                if not is_folder:
                    os.unlink(name, dir_fd=folder)
                    continue
                _unlock(name, folder)  # to open it, and to move it, too
                if folder == self._root:
                    self._folders.append(name)
                else:
                    brought_up = next(self._names)
                    os.rename(name, brought_up, src_dir_fd=folder, dst_dir_fd=self._root)
                    self._folders.append(brought_up)
            except OSError as error:
                self.problem = self.problem or error


def _unlock(name: str | Path, folder: int | None = None) -> None:
    """Give the agent's user all rights to a directory that a program may have locked. What fails is found out later."""
    with suppress(OSError):
        if sys.platform != "linux":
            os.chmod(name, stat.S_IRWXU, dir_fd=folder, follow_symlinks=False)
            return
        # This system call follows links, so it gets the directory itself, which needs no rights to be named so.
        pinned = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        try:
            Path(f"/proc/self/fd/{pinned}").chmod(stat.S_IRWXU)
        finally:
            os.close(pinned)
