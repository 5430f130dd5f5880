"""The list of mutants: one TOML file for each area beside this module."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.change import Change, NotThere

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

    @property
    def change(self) -> Change:
        return Change(self.file, self.old, self.new)

    def check(self, source: str) -> None:
        """Raise `NotAMutant` when the source of its file has changed meanwhile."""
        try:
            self.change.apply(source)
        except NotThere as problem:
            raise NotAMutant(f"{self.area}/{self.name}: {problem}") from None


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
