"""A change to the source of the product, made in a copy of it."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


class NotThere(Exception):
    """The text that a change is about is not in the source exactly once: the source has changed meanwhile."""


@dataclass(frozen=True, slots=True)
class Change:
    """In a file of `src`, `old` becomes `new`."""

    file: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        """Return the source with the change. Raises `NotThere`."""
        found = source.count(self.old)
        if found != 1:
            raise NotThere(f"Its text occurs {found} times in {self.file}, not once.")
        return source.replace(self.old, self.new)


def changed_copy(folder: Path, changes: Iterable[Change]) -> str:
    """Make a copy of `src` in a folder, and return the PYTHONPATH with which programs run on it.

    The copy shares every file but those that are changed. Raises `NotThere`.
    """
    shutil.copytree(REPOSITORY / "src", folder / "src", copy_function=_shared)
    for change in changes:
        path = folder / change.file
        source = path.read_text()
        # A new file: the link would change the original.
        path.unlink()
        path.write_text(change.apply(source))
    # The installed package is the unchanged one; what stands here comes before it.
    return os.pathsep.join((str(folder / "src"), str(REPOSITORY)))


def _shared(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another file system
        shutil.copyfile(source, target)
