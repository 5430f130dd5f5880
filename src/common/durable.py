"""Write files so that a crash, also of the host, finds them as they were meant."""

import os
from pathlib import Path


def write_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Make or replace a file: a crash leaves the old content or the new, and the new is on disk when this returns.

    `mode` are the rights of the file, as far as the umask allows. Raises `OSError`; then the old content stays, or, if
    only the name could not be brought to disk, the new has come.
    """
    draft = path.with_name(f".{path.name}.new")
    handle = _open_new(draft, mode)
    try:
        write_all(handle, content)
        sync(handle)
    finally:
        os.close(handle)
    draft.replace(path)
    sync_folder(path.parent)


def _open_new(path: Path, mode: int) -> int:
    """Open a file that nobody else has open: one that a crash left behind goes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        path.unlink()
        return os.open(path, flags, mode)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk: those added, replaced and removed."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(handle)
    finally:
        os.close(handle)


def sync(handle: int) -> None:
    """Bring a file to disk. Raises `OSError`, and then it is unknown what is there."""
    os.fsync(handle)


def write_all(handle: int, content: bytes) -> None:
    """Write all of it, however many calls that takes. Raises `OSError`, and then some of it may be written."""
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]
