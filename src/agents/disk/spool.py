"""Results on disk until the orchestrator says that they are stored.

Results that end together are appended to one file and brought to disk at once. That some are stored is a line, too, and
a file goes when nothing in it is owed any more. Blocking: call it in a thread.

A line that a crash tore in two is of a result that may have been sent, or not: the next life of the agent owes a failed
one, for the journal has no end of that attempt. The line is recognised, and put aside for a person to look at.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from agents.disk.spool_aside import Aside
from agents.disk.spool_file import SpoolFile
from agents.disk.spool_lines import Key, Unreadable, WrittenResult, lines_of, meaning_of, stored_line

log = logging.getLogger(__name__)

MAX_RESULTS = 10_000
# A file that is larger gets no more lines.
FILE_BYTES = 1024 * 1024


class SpoolFull(OSError):
    """So many results wait already that something must be wrong where they go."""


class _Place(NamedTuple):
    file: SpoolFile
    at: int
    size: int


class Spool:
    """The results of one agent that may not be stored yet."""

    def __init__(self, folder: Path, *, max_results: int = MAX_RESULTS, file_bytes: int = FILE_BYTES) -> None:
        self._folder = folder
        self._max_results = max_results
        self._file_bytes = file_bytes
        self._aside = Aside(folder)
        self._places: dict[Key, _Place] = {}
        self._newest: SpoolFile | None = None
        self._number = 0
        self._lock = Lock()

    def open(self) -> list[Key]:
        """Make the folder if there is none, and return what an earlier life of the agent left, the oldest first."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths = sorted(path for path in self._folder.iterdir() if path.is_file())
        self._number = max((int(path.stem) for path in paths if path.stem.isdecimal()), default=0)
        # All are read first: a later file may say that what an earlier one holds is stored.
        for file, broken in [(file, self._take_in(file)) for file in map(SpoolFile, paths)]:
            if file.owed:
                for at, line, reason in broken:
                    self._aside.copy(file.path, at, line, reason)
            elif broken:
                self._aside.move(file.path, broken[0][2])
            else:
                _remove(file)
        return list(self._places)

    def keep(self, results: Sequence[WrittenResult]) -> list[OSError | None]:
        """Bring results to disk; return for each what prevented it, if anything."""
        with self._lock:
            room = max(0, self._max_results - len(self._places))
            kept, refused = results[:room], results[room:]
            failure = self._append(kept) if kept else None
            full = [SpoolFull(f"{len(self._places)} results wait already") for _ in refused]
        return [*[failure] * len(kept), *full]

    def read(self, key: Key) -> WrittenResult | None:
        """Return a result; None when it is gone or unreadable, which is logged."""
        place = self._places.get(key)
        if place is None:
            return None
        try:
            line = place.file.read(place.at, place.size)
            meaning = meaning_of(line)
        except OSError as failure:
            line, meaning = b"", Unreadable(str(failure))
        if isinstance(meaning, WrittenResult) and meaning.key == key:
            return meaning
        if self._places.get(key) is place:  # otherwise it was stored meanwhile
            reason = meaning.reason if isinstance(meaning, Unreadable) else "it holds something else"
            self._aside.copy(place.file.path, place.at, line, reason)
            self.forget([key])
        return None

    def forget(self, keys: Iterable[Key]) -> None:
        """Remove results that are stored. A removal that a crash undoes only means that one is sent once more."""
        with self._lock:
            gone = [(key, file) for key in keys if (file := self._leave(key)) is not None]
            for file in {file for _, file in gone if not file.owed}:
                self._clear(file)
            left = [key for key, file in gone if file.owed]
            if left and self._newest is not None:
                try:
                    self._newest.append([stored_line(left)], is_durable=False)
                except OSError as failure:
                    log.exception("spool.not_removed", extra={"results": len(left), "reason": str(failure)})
                    self._newest = None

    def _take_in(self, file: SpoolFile) -> list[tuple[int, bytes, str]]:
        """Learn what a file of an earlier life says; return what in it is unreadable: where, what, and why."""
        try:
            content = file.path.read_bytes()
        except OSError as failure:
            return [(0, b"", str(failure))]
        broken = []
        for at, line in lines_of(content):
            match meaning_of(line):
                case WrittenResult(key=key):
                    self._enter(key, _Place(file, at, len(line)))
                case Unreadable(reason=reason):
                    broken.append((at, line, reason))
                case stored:
                    for key in stored:
                        self._leave(key)
        return broken

    def _append(self, results: Sequence[WrittenResult]) -> OSError | None:
        file = self._newest
        try:
            if file is None or file.size >= self._file_bytes:
                file = self._next_file(file)
            places = file.append([result.body for result in results], is_durable=True)
        except OSError as failure:
            self._newest = None
            if file is not None and not file.owed:
                _remove(file)
            return failure
        for result, at in zip(results, places, strict=True):
            self._enter(result.key, _Place(file, at, len(result.body)))
        return None

    def _next_file(self, last: SpoolFile | None) -> SpoolFile:
        if last is not None:
            last.close()
        self._number += 1
        self._newest = SpoolFile(self._folder / f"{self._number:012}.jsonl")
        self._newest.create()
        return self._newest

    def _enter(self, key: Key, place: _Place) -> None:
        self._leave(key)
        self._places[key] = place
        place.file.owed += 1

    def _leave(self, key: Key) -> SpoolFile | None:
        """Owe a result no more; return the file that it is in."""
        place = self._places.pop(key, None)
        if place is None:
            return None
        place.file.owed -= 1
        return place.file

    def _clear(self, file: SpoolFile) -> None:
        if file is self._newest:
            file.empty()
        else:
            _remove(file)


def _remove(file: SpoolFile) -> None:
    try:
        file.remove()
    except OSError as failure:
        log.exception("spool.not_removed", extra={"file": file.path.name, "reason": str(failure)})
