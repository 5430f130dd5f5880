"""Write files so that a crash, also of the host, finds them as they were meant."""

import os
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path

from common.safeguards import Safeguard, is_on


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file: a crash leaves the old content or the new. That the name is on disk too needs `sync_folder`."""
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


def write_new(folder: Path, contents: Mapping[str, bytes], *, threads: Executor) -> dict[str, OSError]:
    """Write new files, content and names, and return what failed. A crash leaves any of them whole, torn, or absent.

    All are written first and then brought to disk side by side, because a file system does that in one go for many
    files: so it costs little more for a hundred than for one. Drafts with a rename would cost it a second time.
    """
    failures: dict[str, OSError] = {}
    with ExitStack() as files:
        handles: dict[str, int] = {}
        for name, content in contents.items():
            try:
                handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                files.callback(os.close, handle)
                _write_all(handle, content)
                handles[name] = handle
            except OSError as failure:
                failures[name] = failure
        syncs = {name: threads.submit(_sync, handle) for name, handle in handles.items()}
        names = threads.submit(sync_folder, folder)
        for name in handles:
            unsynced = syncs[name].exception() or names.exception()
            if isinstance(unsynced, OSError):
                failures[name] = unsynced
            elif unsynced is not None:
                raise unsynced
    return failures


def _write_all(handle: int, content: bytes) -> None:
    while content:
        content = content[os.write(handle, content) :]
