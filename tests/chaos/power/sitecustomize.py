"""Loaded by Python at the start of an agent under test: notes what `fsync` has brought to disk.

A file's content is on disk as it was at its last `fsync`, and its name as it was at that of its folder. That is what
POSIX promises, and no more; `tests.chaos.power_cut` makes the rest disappear.
"""

import json
import os
import shutil
from pathlib import Path
from urllib.parse import quote

_sync = os.fsync
_disk = Path(os.environ["CHAOS_DISK"])


def fsync(handle: int) -> None:
    _sync(handle)
    path = Path(f"/proc/self/fd/{handle}").readlink()
    if path.is_dir():
        names = {entry.name: "folder" if entry.is_dir() else str(entry.inode()) for entry in os.scandir(path)}
        _write(_disk / "names" / quote(str(path), safe=""), json.dumps(names).encode())
    else:
        _write(_disk / "content" / str(os.fstat(handle).st_ino), path.read_bytes() if path.exists() else b"")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.write_bytes(data)
    shutil.move(draft, path)


os.fsync = fsync  # type: ignore[assignment]
