"""One file of the spool: appended to while it is the newest, removed when nothing in it is owed any more."""

import os
from collections.abc import Sequence
from pathlib import Path

from common.durable import sync, sync_folder, write_all


class SpoolFile:
    """Lines on disk. `owed`: the results in it that are not stored. Not for two threads at a time, except `read`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owed = 0
        self._handle: int | None = None
        self._size = 0
        self._is_named = False

    @property
    def size(self) -> int:
        return self._size

    def create(self) -> None:
        """Make the file; its name is on disk when the first lines are. Raises `OSError`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._handle = os.open(self.path, flags, 0o600)

    def append(self, lines: Sequence[bytes], *, is_durable: bool) -> list[int]:
        """Add lines and return where each begins; when they are durable, they are on disk when this returns.

        Raises `OSError`: then none of them is there, and nothing can be appended any more.
        """
        if self._handle is None:
            raise OSError(f"{self.path.name} takes no more lines")
        places, end = [], self._size
        for line in lines:
            places.append(end)
            end += len(line) + 1
        try:
            write_all(self._handle, b"".join(line + b"\n" for line in lines))
            if is_durable:
                sync(self._handle)
                if not self._is_named:
                    sync_folder(self.path.parent)
                    self._is_named = True
        except OSError:
            # What a disk that failed has kept of it is not known, so the next lines go to another file.
            self._cut(self._size)
            self.close()
            raise
        self._size = end
        return places

    def read(self, place: int, size: int) -> bytes:
        """Return bytes of the file. Raises `OSError`."""
        handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(handle, size, place)
        finally:
            os.close(handle)

    def empty(self) -> None:
        """Throw all lines away; a crash may bring them back."""
        if self._handle is not None:
            self._cut(0)

    def close(self) -> None:
        """Append no more."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def remove(self) -> None:
        """Raises `OSError`."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _cut(self, size: int) -> None:
        assert self._handle is not None
        try:
            os.ftruncate(self._handle, size)
            self._size = size
        except OSError:
            self.close()
