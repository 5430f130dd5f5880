"""Write files so that a crash, also of the host, finds them as they were meant."""

import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file: a crash leaves the old content or the new. That the name is on disk too needs `sync_folder`."""
    draft = path.with_name(f"{path.name}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(handle, data)
        sync(handle)
    finally:
        os.close(handle)
    draft.replace(path)


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
