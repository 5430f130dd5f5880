"""Find the files of a workspace that patterns name, whatever a program made of it, and does to it meanwhile.

No link is followed, on no part of the way: each folder is opened below the one before, so that nothing that a program
puts in its place leads out of the workspace. What is not a regular file, or has another name somewhere, is refused.

A part of a pattern is compared with one name; `**` stands for any number of folders, and at the end of a pattern for
all that is in them. As in a shell, no wildcard stands for a dot at the beginning of a name.
"""

import errno
import os
import re
import stat
from collections.abc import Generator, Iterator, Sequence
from fnmatch import translate
from heapq import nsmallest
from pathlib import Path
from typing import NamedTuple

from common.artifacts import LONGEST_ARTIFACT_NAME, check_artifact_name
from common.work import ANY_FOLDERS, WORKSPACE_FOLDERS

MOST_KEPT = 256
# How many names are looked at for one attempt.
MOST_SEEN = 200_000

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: meanwhile it may have become something that would never open.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

LINK, HARD_LINK = "it is a link", "it has another name, too (a hard link)"
NO_FILE, OF_OTHERS = "it is no regular file", "it belongs to another user"
IS_FOLDER = "it is a folder: name what is in it, as in {!r}"

# No entry of a folder, and the ways out of it.
NO_NAMES = frozenset({"", ".", ".."})

_WILDCARD = re.compile(r"[*?\[]")


class Unusable(Exception):
    """A file is not kept; the text says why."""


class Found(NamedTuple):
    """A file that is to be kept; whoever takes it closes it."""

    name: str
    file: int


class Missed(NamedTuple):
    """A file, or a pattern, of which nothing is kept, and why."""

    name: str
    reason: str


class _Part(NamedTuple):
    text: str
    # None for a name as it is, and for `**`.
    pattern: re.Pattern[str] | None

    @property
    def is_any_folders(self) -> bool:
        return self.text == ANY_FOLDERS

    @property
    def is_name(self) -> bool:
        return self.pattern is None and not self.is_any_folders

    def matches(self, name: str) -> bool:
        if name.startswith(".") and not self.text.startswith("."):
            return False
        if self.pattern is None:
            return self.is_any_folders or name == self.text
        return self.pattern.fullmatch(name) is not None


# A place in a pattern: its number, and that of the part which is compared next.
_Place = tuple[int, int]


def matching(workspace: Path, patterns: Sequence[str], *, owner: int | None = None) -> Generator[Found | Missed]:
    """Yield each file that one of the patterns names, open, in the order of their names. Blocking.

    `owner`: whose all files must be; None: anybody's. Raises `OSError` when the workspace itself cannot be opened.
    """
    root = os.open(workspace, FOLDER)
    try:
        yield from _Search(patterns, owner).run(root)
    finally:
        os.close(root)


def open_regular(name: str | Path, *, folder: int | None = None, owner: int | None = None) -> int:
    """Open a regular file that has this name alone; raises `Unusable`, and `OSError` for one that cannot be opened."""
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        raise Unusable(LINK)
    if not stat.S_ISREG(mode):  # opening a device may do something
        raise Unusable(NO_FILE)
    try:
        file = os.open(name, FILE, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:  # it was a file a moment ago
            raise Unusable(LINK) from None
        raise
    found = os.fstat(file)
    problem = _problem_with(found, owner)
    if problem is None:
        return file
    os.close(file)
    raise Unusable(problem)


def _problem_with(found: os.stat_result, owner: int | None) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return NO_FILE
    if found.st_nlink != 1:
        return HARD_LINK
    return OF_OTHERS if owner is not None and found.st_uid != owner else None


class _Search:
    def __init__(self, patterns: Sequence[str], owner: int | None) -> None:
        self._texts = patterns
        self._patterns = [[_part(text) for text in pattern.split("/")] for pattern in patterns]
        self._owner = owner
        self._kept = 0
        self._seen = 0
        self._is_over = False
        self._used: set[int] = set()

    def run(self, root: int) -> Iterator[Found | Missed]:
        yield from self._look(root, "", self._spread((number, 0) for number in range(len(self._patterns))))
        if not self._is_over:
            for number, text in enumerate(self._texts):
                if number not in self._used:
                    yield Missed(text, "there is no such file")

    def _look(self, folder: int, above: str, places: frozenset[_Place]) -> Iterator[Found | Missed]:
        for name in self._names(folder, places):
            if not above and name in WORKSPACE_FOLDERS:
                continue
            ends, goes_on = self._compare(name, places)
            if not ends and not goes_on:
                continue
            yield from self._take(folder, f"{above}{name}", name, ends, goes_on)
            if self._is_over:
                return
        if self._seen > MOST_SEEN and not self._is_over:
            self._is_over = True
            yield Missed(above or ".", f"there are more than {MOST_SEEN} files to look at; the rest is left out")

    def _names(self, folder: int, places: frozenset[_Place]) -> Iterator[str]:
        """Yield the names in a folder that matter: without any wildcard, those that the patterns say."""
        parts = [self._patterns[number][at] for number, at in places]
        if all(part.is_name for part in parts):
            names = sorted({part.text for part in parts} - NO_NAMES)
        else:
            with os.scandir(folder) as entries:
                names = nsmallest(MOST_SEEN - self._seen + 1, (entry.name for entry in entries))
        for name in names:
            self._seen += 1
            if self._seen > MOST_SEEN:
                return
            yield name

    def _compare(self, name: str, places: frozenset[_Place]) -> tuple[set[_Place], frozenset[_Place]]:
        """Return the places at which a name ends a pattern, and those with which its folder goes on."""
        ends: set[_Place] = set()
        goes_on: set[_Place] = set()
        for number, at in places:
            parts = self._patterns[number]
            if not parts[at].matches(name):
                continue
            if at == len(parts) - 1:
                ends.add((number, at))
            if parts[at].is_any_folders:
                goes_on.add((number, at))
            elif at < len(parts) - 1:
                goes_on.add((number, at + 1))
        return ends, self._spread(goes_on)

    def _spread(self, places: Iterator[_Place] | set[_Place]) -> frozenset[_Place]:
        """Add the places behind each `**`, which stands for no folder, too."""
        spread: set[_Place] = set()
        for number, first in places:
            parts = self._patterns[number]
            at = first
            while parts[at].is_any_folders and at < len(parts) - 1:
                spread.add((number, at))
                at += 1
            spread.add((number, at))
        return frozenset(spread)

    def _take(
        self, folder: int, path: str, name: str, ends: set[_Place], goes_on: frozenset[_Place]
    ) -> Iterator[Found | Missed]:
        """Yield what an entry is, and what is below it."""
        try:
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except FileNotFoundError:  # it is gone, or was never there
            return
        except OSError as error:
            yield self._missed(path, f"it cannot be read: {error.strerror}", ends)
            return
        if stat.S_ISDIR(mode):
            yield from self._enter(folder, path, name, ends, goes_on)
        elif stat.S_ISLNK(mode):
            if meant := ends | {place for place in goes_on if self._is_named(place)}:
                yield self._missed(path, LINK, meant)
        elif ends:
            yield self._open(folder, path, name, ends)

    def _is_named(self, place: _Place) -> bool:
        """Whether the part before a place is a name without wildcards, so that its folder was meant."""
        number, at = place
        return at > 0 and self._patterns[number][at - 1].is_name

    def _enter(
        self, folder: int, path: str, name: str, ends: set[_Place], goes_on: frozenset[_Place]
    ) -> Iterator[Found | Missed]:
        if named := {(number, at) for number, at in ends if self._patterns[number][at].is_name}:
            yield self._missed(path, IS_FOLDER.format(f"{path}/{ANY_FOLDERS}"), named)
        if not goes_on:
            return
        if len(os.fsencode(path)) >= LONGEST_ARTIFACT_NAME:
            yield self._missed(path, f"what is in it has a path of more than {LONGEST_ARTIFACT_NAME} bytes", goes_on)
            return
        try:
            inner = os.open(name, FOLDER, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError as error:
            reason = LINK if error.errno in (errno.ELOOP, errno.ENOTDIR) else f"it cannot be read: {error.strerror}"
            yield self._missed(path, reason, goes_on)
            return
        try:
            yield from self._look(inner, f"{path}/", goes_on)
        finally:
            os.close(inner)

    def _open(self, folder: int, path: str, name: str, ends: set[_Place]) -> Found | Missed:
        try:
            check_artifact_name(path)
            if self._kept == MOST_KEPT:
                self._is_over = True
                return Missed(path, f"more than {MOST_KEPT} files are named; this one and those after it are left out")
            file = open_regular(name, folder=folder, owner=self._owner)
        except Unusable as problem:
            return self._missed(path, str(problem), ends)
        except ValueError as problem:
            return self._missed(path, f"its name {problem}", ends)
        except OSError as error:
            return self._missed(path, f"it cannot be read: {error.strerror}", ends)
        self._kept += 1
        self._used.update(number for number, _ in ends)
        return Found(path, file)

    def _missed(self, path: str, reason: str, places: set[_Place] | frozenset[_Place]) -> Missed:
        self._used.update(number for number, _ in places)
        return Missed(path, reason)


def _part(text: str) -> _Part:
    is_pattern = text != ANY_FOLDERS and _WILDCARD.search(text) is not None
    return _Part(text, re.compile(translate(text)) if is_pattern else None)
