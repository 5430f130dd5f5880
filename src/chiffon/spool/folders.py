"""The folders of a spool, and the moves between them. Blocking; a crash between any two finds whole files.

incoming/    what others dropped
processing/  what was claimed and has no result yet
outgoing/    results
failed/      what cannot be dispatched, each beside NAME.reason.json
"""

import fcntl
import json
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from common.durable import sync_folder, write_file
from common.errors import StartupRefused

log = logging.getLogger(__name__)

FOLDERS = ("incoming", "processing", "outgoing", "failed")


class SpoolTaken(StartupRefused):
    """The directory cannot be had; the message says why."""


class BadFile(ValueError):
    """A file that must not be read, or cannot be; the text says why."""


class Found(NamedTuple):
    """A file, and what tells whether it is still the same: `mtime` is in nanoseconds."""

    mtime: int
    name: str
    inode: int
    size: int


class Folders:
    """The four folders below a directory."""

    def __init__(self, root: Path) -> None:
        self.incoming, self.processing, self.outgoing, self.failed = (root / name for name in FOLDERS)

    def waiting(self) -> list[Found]:
        """Return what was dropped and is named as one that is finished, the oldest first."""
        return _list(self.incoming)

    def claimed(self) -> list[Found]:
        return _list(self.processing)

    def read(self, folder: Path, name: str, *, limit: int) -> bytes:
        """Return the content of a file. Raises `BadFile`, and `FileNotFoundError` when it is gone."""
        try:
            # Neither a link to elsewhere is followed, nor a pipe waited for.
            handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as failure:
            kind = (
                "It is a symbolic link." if (folder / name).is_symlink() else f"It cannot be read: {failure.strerror}."
            )
            raise BadFile(kind) from failure
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise BadFile("It is no regular file.")
            with open(handle, "rb", closefd=False) as file:
                content = file.read(limit + 1)
        except OSError as failure:
            raise BadFile(f"It cannot be read: {failure.strerror}.") from failure
        finally:
            os.close(handle)
        if len(content) > limit:
            raise BadFile(f"It is larger than the {limit} bytes that are allowed.")
        return content

    def claim(self, name: str) -> None:
        """Take a file out of the others' reach. The caller knows that none of this name is claimed."""
        (self.incoming / name).rename(self.processing / name)

    def put_back(self, name: str) -> bool:
        """Put a claimed file back unchanged; False when a new one of its name was dropped meanwhile."""
        try:
            # A link and not a rename, which would replace what somebody has just dropped.
            (self.incoming / name).hardlink_to(self.processing / name)
        except OSError:
            return False
        (self.processing / name).unlink(missing_ok=True)
        return True

    def tidy(self) -> None:
        """Remove what a crash left of a put-back and of results that were being written."""
        for found in self.claimed():
            twin, claimed = self.incoming / found.name, self.processing / found.name
            if os.path.lexists(twin) and twin.lstat().st_ino == found.inode:
                claimed.unlink()
                log.warning("spool.put_back", extra={"file": found.name})
        for draft in self.outgoing.glob(".*.new"):
            draft.unlink(missing_ok=True)

    def fail(self, folder: Path, name: str, reason: Mapping[str, Any]) -> None:
        """Set a file aside, beside one that says why; an earlier one of its name stays."""
        aside, number = name, 1
        while os.path.lexists(self.failed / aside):
            number += 1
            aside = f"{Path(name).stem}.{number}.json"
        _write(self.failed, f"{aside}.reason.json", {"file": name, **reason})
        (folder / name).rename(self.failed / aside)
        sync_folder(self.failed)
        log.warning("spool.failed", extra={"file": name, "reason": reason.get("reason")})

    def finish(self, name: str, outgoing: str, result: Mapping[str, Any]) -> str:
        """Write a result and then forget what asked for it; returns the result's name.

        Done again after a crash in the middle, it writes the same file.
        """
        if self._belongs_to_another(outgoing, result):
            outgoing = f"{outgoing.removesuffix('.json')}-{result['task_id']}.json"
        _write(self.outgoing, outgoing, result)
        (self.processing / name).unlink(missing_ok=True)
        sync_folder(self.processing)
        return outgoing

    def _belongs_to_another(self, outgoing: str, result: Mapping[str, Any]) -> bool:
        try:
            there = json.loads((self.outgoing / outgoing).read_bytes())
        except FileNotFoundError:
            return False
        except ValueError:
            return True
        return not isinstance(there, dict) or there.get("task_id") != result["task_id"]


@contextmanager
def open_folders(root: Path) -> Iterator[Folders]:
    """Make the folders and keep every other spool out of them. Raises `SpoolTaken`."""
    try:
        for name in FOLDERS:
            (root / name).mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w")
    except OSError as failure:
        raise SpoolTaken(f"The directory {root} cannot be used: {failure.strerror}.") from failure
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            message = f"Another `chiffon spool` uses {root}. Stop it, or choose another directory."
            raise SpoolTaken(message) from None
        yield Folders(root)


def _list(folder: Path) -> list[Found]:
    found: list[Found] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.endswith(".json"):
                continue
            try:
                about = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            found.append(Found(about.st_mtime_ns, entry.name, about.st_ino, about.st_size))
    return sorted(found)


def _write(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    write_file(folder / name, f"{json.dumps(content, indent=2)}\n".encode(), mode=0o666)
