"""The map in ARCHITECTURE.md leads to files, classes, functions and constants that exist."""

import ast
import re
from collections.abc import Iterator

from tests.architecture.source import ROOT

PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<question>[^|`]+\?) \| `(?P<file>[^`]+)` \| (?P<names>[^|]+) \|$", re.MULTILINE)
# A path in the rest of the page begins at one of these.
STARTS = ("", "src/", "src/orchestrator/")


def test_the_map_answers_each_question_once() -> None:
    questions = [row["question"] for row in ROW.finditer(PAGE)]

    assert len(questions) > 20
    assert len(questions) == len(set(questions))


def test_every_place_that_the_map_names_exists() -> None:
    lost = []
    for row in ROW.finditer(PAGE):
        path = ROOT / "src" / row["file"]
        known = set(_names(ast.parse(path.read_text(encoding="utf-8")))) if path.is_file() else set()
        lost += [f"{row['file']}: {name}" for name in re.findall(r"`([^`]+)`", row["names"]) if name not in known]

    assert not lost, "not there:\n" + "\n".join(lost)


def test_every_row_of_the_map_is_read() -> None:
    table = PAGE.partition("| question | file | name |\n|---|---|---|\n")[2].partition("\n\n")[0]

    assert len(table.splitlines()) == len(ROW.findall(PAGE))


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`([\w/]+/[\w/]*(?:\.py)?)`", PAGE))
    lost = [path for path in sorted(named) if not any((ROOT / start / path).exists() for start in STARTS)]

    assert not lost, "not there:\n" + "\n".join(lost)


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
