"""The list of mutants fits the source and names tests that exist."""

import re
from functools import cache

from tests.mutants.catalogue import mutants
from tests.mutants.change import REPOSITORY

FEWEST = 200
MUTANTS = mutants()


def test_there_are_enough_mutants_and_no_name_is_given_twice() -> None:
    names = [f"{mutant.area}/{mutant.name}" for mutant in MUTANTS]

    assert len(names) >= FEWEST
    assert len(names) == len(set(names))


def test_each_mutant_changes_one_place_of_its_file() -> None:
    sources = {file: (REPOSITORY / file).read_text() for file in {mutant.file for mutant in MUTANTS}}
    wrong = [
        f"{mutant.area}/{mutant.name}: its text occurs {sources[mutant.file].count(mutant.old)} times in {mutant.file}"
        for mutant in MUTANTS
        if sources[mutant.file].count(mutant.old) != 1 or mutant.old == mutant.new
    ]

    assert wrong == []


def test_the_tests_of_each_mutant_exist() -> None:
    missing = [
        f"{mutant.area}/{mutant.name}: {test}"
        for mutant in MUTANTS
        for test in mutant.tests
        if not _exists(*test.split("::"))
    ]

    assert missing == []


def _exists(file: str, *names: str) -> bool:
    return bool(names) and names[-1].partition("[")[0] in _functions_of(file)


@cache
def _functions_of(file: str) -> frozenset[str]:
    path = REPOSITORY / file
    return frozenset(re.findall(r"def (test_\w+)\(", path.read_text())) if path.exists() else frozenset()
