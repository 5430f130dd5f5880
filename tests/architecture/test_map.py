"""The map in ARCHITECTURE.md and the list of words lead to files, classes, functions and constants that exist."""

import ast
import re
from collections.abc import Collection, Iterator

from tests.architecture.source import ROOT

PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<question>[^|`]+\?) \| `(?P<file>[^`]+)` \| (?P<names>[^|]+) \|$", re.MULTILINE)
WORDS = (ROOT / "docs" / "reference" / "words.md").read_text(encoding="utf-8").partition("\n## ")[2]
WORD = re.compile(r"^\| (?P<word>[^|]+) \| (?P<meaning>[^|]+) \| (?P<places>`[^|]+) \|$", re.MULTILINE)
PLACE = re.compile(r"`(?P<file>[\w/]+\.py)`(?: `(?P<name>[\w.]+)`)?")
# A path in the rest of the page begins at one of these.
STARTS = ("", "src/", "src/orchestrator/")


def test_the_map_answers_each_question_once() -> None:
    questions = [row["question"] for row in ROW.finditer(PAGE)]

    assert len(questions) > 20
    assert len(questions) == len(set(questions))


def test_every_place_that_the_map_names_exists() -> None:
    named = {(row["file"], name) for row in ROW.finditer(PAGE) for name in re.findall(r"`([^`]+)`", row["names"])}

    assert not _lost(named), "not there:\n" + "\n".join(_lost(named))


def test_every_row_of_the_map_is_read() -> None:
    table = PAGE.partition("| question | file | name |\n|---|---|---|\n")[2].partition("\n\n")[0]

    assert len(table.splitlines()) == len(ROW.findall(PAGE))


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`([\w/]+/[\w/]*(?:\.py)?)`", PAGE))
    lost = [path for path in sorted(named) if not any((ROOT / start / path).exists() for start in STARTS)]

    assert not lost, "not there:\n" + "\n".join(lost)


def test_every_word_has_one_meaning() -> None:
    listed = WORDS.partition("\n## Words that also name something else\n")[0]
    words = [word for row in WORD.finditer(listed) for word in row["word"].split(", ")]

    assert len(words) > 50
    assert sorted(words) == sorted(set(words))


def test_every_place_that_the_words_name_exists() -> None:
    named = {(place["file"], place["name"]) for place in PLACE.finditer(WORDS) if place["name"] is not None}
    files = {place["file"] for place in PLACE.finditer(WORDS)}

    assert [row["word"] for row in WORD.finditer(WORDS) if not PLACE.search(row["places"])] == []
    assert not _lost(named), "not there:\n" + "\n".join(_lost(named))
    assert [file for file in sorted(files) if not (ROOT / "src" / file).is_file() and "/" in file] == []


def _lost(places: Collection[tuple[str, str]]) -> list[str]:
    """Return which (file below src/, name in it) do not exist."""
    known: dict[str, set[str]] = {}
    for file in {file for file, _ in places}:
        path = ROOT / "src" / file
        known[file] = set(_names(ast.parse(path.read_text(encoding="utf-8")))) if path.is_file() else set()
    return sorted(f"{file}: {name}" for file, name in places if name not in known[file])


def _names(tree: ast.Module) -> Iterator[str]:
    """Yield what a module defines at its top, and `Class.method` for what its classes define."""
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.name
            case ast.ClassDef():
                yield node.name
                yield from (
                    f"{node.name}.{inner.name}"
                    for inner in node.body
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
                )
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case _:
                pass
