"""The file of the journal: appended to, read after a crash, and replaced when it has grown large.

One previous file is kept. A new one opens with the lines of every attempt that is not over, so that what is not over is
never thrown away with an old file.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from common.durable import sync_folder

MAX_BYTES = 8 * 1024 * 1024


class Line(NamedTuple):
    """One line, without its end. `attempt`: the task and the number of its attempt; None for a line that is about none
    and never goes away.

    `is_last`: nothing about that attempt follows.
    """

    attempt: tuple[UUID, int] | None
    text: bytes
    is_last: bool = False


class JournalFile:
    """Lines are with the system when `append` returns, and so survive the end of the process, but not of the host."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file: int | None = None
        self._size = 0
        self._is_torn = False
        self._open_lines: dict[tuple[UUID, int] | None, list[bytes]] = {}

    @property
    def previous(self) -> Path:
        return self._path.with_suffix(f".1{self._path.suffix}")

    def read(self) -> Iterator[bytes]:
        """Return all lines that are there, the oldest first, also torn ones."""
        for path in (self.previous, self._path):
            if path.exists():
                yield from path.read_bytes().split(b"\n")

    def append(self, *lines: Line) -> None:
        """Add lines; raises `OSError`."""
        if self._size > self._max_bytes:
            self._rotate()
        file = self._opened()
        # After a write that failed half-way, the next line must not become part of its remains.
        data = (b"\n" if self._is_torn else b"") + b"".join(line.text + b"\n" for line in lines)
        self._is_torn = True
        while data:
            written = os.write(file, data)
            self._size += written
            data = data[written:]
        self._is_torn = False
        self._remember(lines)

    def sync(self) -> None:
        """Bring all lines and the names in the folder to disk. Raises `OSError`."""
        os.fsync(self._opened())
        # Always: an earlier process may have been killed between making the file and this.
        sync_folder(self._path.parent)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _opened(self) -> int:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(self._file).st_size
            self._is_torn = self._size > 0 and os.pread(self._file, 1, self._size - 1) != b"\n"
        return self._file

    def _remember(self, lines: Sequence[Line]) -> None:
        for line in lines:
            if line.is_last:
                self._open_lines.pop(line.attempt, None)
            else:
                self._open_lines.setdefault(line.attempt, []).append(line.text)

    def _rotate(self) -> None:
        draft = self._path.with_suffix(f".next{self._path.suffix}")
        draft.write_bytes(b"".join(text + b"\n" for texts in self._open_lines.values() for text in texts))
        draft.chmod(0o600)
        self.close()
        # A crash or a failure between these two leaves no current file, and the previous one has everything.
        with suppress(FileNotFoundError):
            self._path.replace(self.previous)
        draft.replace(self._path)
        self._size = 0
