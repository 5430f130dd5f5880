"""Write files so that a crash, also of the host, leaves the old content or the new, never half of one."""

import os
from pathlib import Path

from common.safeguards import Safeguard, is_on


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file. The content is on disk when this returns; that the name is too needs `sync_folder`."""
    draft = path.with_name(f"{path.name}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        _sync(file.fileno())
    draft.replace(path)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk: those added, replaced and removed."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    if is_on(Safeguard.SPOOL_FSYNC):
        os.fsync(handle)
