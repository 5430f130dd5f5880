"""What a power cut would leave of the files that this process writes.

The content of a file is on disk as it was at its last `fsync`, and its name as it was at that of its folder. That is
what POSIX promises, and no more.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Disk:
    """Remembers what `fsync` has brought to disk; nothing is really synced meanwhile. `synced`: in their order."""

    def __init__(self) -> None:
        self.synced: list[Path] = []
        self._names: dict[Path, dict[str, int]] = {}
        self._content: dict[int, bytes] = {}

    def fsync(self, handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        self.synced.append(path)
        if path.is_dir():
            self._names[path] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self._content[os.fstat(handle).st_ino] = path.read_bytes()

    def read(self, path: Path) -> bytes | None:
        """Return what a power cut would leave of a file; None when its name would be gone."""
        inode = self._names.get(path.parent, {}).get(path.name)
        return None if inode is None else self._content.get(inode, b"")

    def has(self, path: Path) -> bool:
        """Return whether the name of a file or folder would be left."""
        return path.name in self._names.get(path.parent, {})

    def content_of(self, path: Path) -> bytes | None:
        """Return what of the content of a file is on disk, whatever its name; None when it was never synced."""
        return self._content.get(path.stat().st_ino)


@contextmanager
def watched_disk() -> Iterator[Disk]:
    disk = Disk()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", disk.fsync)
        yield disk
