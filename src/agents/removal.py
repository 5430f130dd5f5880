"""Remove a directory with all in it, however deep it is and whatever a program did to it."""

import os
import stat
from collections import deque
from contextlib import suppress
from itertools import count
from pathlib import Path
from uuid import uuid4

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def remove_tree(top: Path) -> None:
    """Remove as much as can be removed; raises the first `OSError` if that is not all."""
    with suppress(OSError):
        top.rmdir()
        return
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
                with suppress(OSError):  # a program may have locked it
                    os.chmod(name, stat.S_IRWXU, dir_fd=self._root)
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
                elif folder == self._root:
                    self._folders.append(name)
                else:
                    brought_up = next(self._names)
                    os.rename(name, brought_up, src_dir_fd=folder, dst_dir_fd=self._root)
                    self._folders.append(brought_up)
            except OSError as error:
                self.problem = self.problem or error
