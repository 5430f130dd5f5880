"""Results on disk, one file each, until the orchestrator says that they are stored.

Blocking: whoever has an event loop calls it in a thread. Nobody is told of a result before its file is whole and on
disk. A file that a crash tore in two is therefore of a result that does not count yet; it is no JSON, so it is
recognised, and moved aside for a person to look at.
"""

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from agents.durable import write_new
from common.protocol import UnreadableMessage, WorkResultEnvelope, decode, encode

log = logging.getLogger(__name__)

MAX_FILES = 10_000
MAX_ASIDE = 100
ASIDE = "unreadable"
THREADS = 8


class SpoolFull(OSError):
    """So many results wait already that something must be wrong with whoever takes them."""


class Key(NamedTuple):
    """Which result: a task has one for each fence at most."""

    task_id: UUID
    fence: int


def key_of(result: WorkResultEnvelope) -> Key:
    return Key(result.payload.task_id, result.payload.fence)


class Spool:
    """The results of one agent that may not be stored yet."""

    def __init__(self, folder: Path, *, max_files: int = MAX_FILES) -> None:
        self._folder = folder
        self._max_files = max_files
        self._files: set[Key] = set()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="spool")

    def open(self) -> list[Key]:
        """Make the folder if there is none, and return what an earlier life of the agent left, the oldest first."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found: list[tuple[float, Key]] = []
        for path in sorted(self._folder.iterdir()):
            if not path.is_file():
                continue
            result = _read(path)
            if isinstance(result, str) or path != self._path(key_of(result)):
                self._move_aside(path, result if isinstance(result, str) else "its name is not that of its content")
            else:
                found.append((path.stat().st_mtime, key_of(result)))
        self._files = {key for _, key in found}
        return [key for _, key in sorted(found)]

    def keep(self, results: Sequence[WorkResultEnvelope]) -> list[OSError | None]:
        """Bring results to disk, names included; return for each what prevented it, if anything."""
        room = max(0, self._max_files - len(self._files))
        kept, refused = results[:room], results[room:]
        contents = {self._path(key_of(result)).name: encode(result) for result in kept}
        failures = write_new(self._folder, contents, threads=self._threads)
        outcomes: list[OSError | None] = []
        for result in kept:
            path = self._path(key_of(result))
            outcomes.append(failures.get(path.name))
            if path.name in failures:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            else:
                self._files.add(key_of(result))
        return [*outcomes, *(SpoolFull(f"{len(self._files)} results wait already") for _ in refused)]

    def read(self, key: Key) -> WorkResultEnvelope | None:
        """Return a result; None when its file is gone or unreadable, which is logged."""
        path = self._path(key)
        result = _read(path)
        if not isinstance(result, str):
            return result
        self._files.discard(key)
        if path.exists():
            self._move_aside(path, result)
        else:
            log.error("spool.file_gone", extra={"file": path.name})
        return None

    def forget(self, keys: Iterable[Key]) -> None:
        """Remove results that are stored. A removal that a crash undoes only means that one is sent once more."""
        for key in keys:
            self._files.discard(key)
            try:
                self._path(key).unlink(missing_ok=True)
            except OSError as failure:
                log.exception("spool.not_removed", extra={"file": self._path(key).name, "reason": str(failure)})

    def _path(self, key: Key) -> Path:
        return self._folder / f"{key.task_id}-{key.fence}.json"

    def _move_aside(self, path: Path, reason: str) -> None:
        try:
            aside = self._folder / ASIDE
            aside.mkdir(mode=0o700, exist_ok=True)
            if sum(1 for _ in aside.iterdir()) < MAX_ASIDE:
                path.replace(aside / path.name)
            else:
                path.unlink()
        except OSError as failure:
            log.exception("spool.not_moved", extra={"file": path.name, "reason": str(failure)})
        log.error("spool.unreadable", extra={"file": path.name, "reason": reason})


def _read(path: Path) -> WorkResultEnvelope | str:
    """Return the result in a file, or why there is none."""
    try:
        envelope = decode(path.read_bytes())
    except (OSError, UnreadableMessage) as failure:
        return str(failure)
    return envelope if isinstance(envelope, WorkResultEnvelope) else f"it holds a {envelope.type}"
