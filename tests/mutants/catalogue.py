"""The list of mutants: one TOML file for each area beside this module."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path(__file__).parent


class NotAMutant(Exception):
    """An entry of the list cannot be used; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One safeguard taken away: `old` becomes `new` in a file of `src`, and every test of `tests` must fail for it.

    `redundant` says why no test can notice: another guard, which it names, holds the promise alone.
    """

    area: str
    name: str
    promise: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    redundant: str | None = None

    def apply(self, source: str) -> str:
        """Return the source without the safeguard. Raises `NotAMutant` when the source has changed meanwhile."""
        found = source.count(self.old)
        if found != 1:
            raise NotAMutant(f"{self.area}/{self.name}: its text occurs {found} times in {self.file}, not once.")
        return source.replace(self.old, self.new)


def mutants() -> list[Mutant]:
    """Return every mutant, in the order of areas and files. Raises `NotAMutant` for an entry that lacks something."""
    return [mutant for path in sorted(FOLDER.glob("*.toml")) for mutant in _of(path)]


def _of(path: Path) -> Iterator[Mutant]:
    for entry in tomllib.loads(path.read_text())["mutant"]:
        name = f"{path.stem}/{entry.get('name')}"
        tests, redundant = tuple(entry.pop("tests", ())), entry.get("redundant")
        if bool(tests) == bool(redundant):
            raise NotAMutant(f"{name} needs either tests that notice it, or a reason why it is redundant.")
        try:
            yield Mutant(area=path.stem, tests=tests, **entry)
        except TypeError as failure:
            raise NotAMutant(f"{name}: {failure}") from failure
