"""The repository as the architecture tests see it: tracked files, and the parsed modules under src/ and tests/."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file; `path` is relative to the repository's root."""

    path: str
    text: str
    tree: ast.Module

    def at(self, node: ast.AST, what: str) -> str:
        """Return one line that says where in this file something is wrong."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {what}"


@cache
def modules(folder: str) -> tuple[Module, ...]:
    """Return every module below a folder, in a fixed order."""
    return tuple(_parse(path) for path in sorted((ROOT / folder).rglob("*.py")))


@cache
def published_files() -> tuple[Path, ...]:
    """Return every file that git would publish: tracked ones, and new ones that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    names = sorted(set(listed.stdout.decode().split("\0")) - {""})
    return tuple(path for path in (ROOT / name for name in names) if path.is_file())


@cache
def walked(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Return every node of a tree, in no order that matters: to walk it takes longer than what tests ask of it."""
    return tuple(ast.walk(tree))


def imported_names(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Yield every imported module with the statement that imports it, wherever in the file it stands."""
    for node in walked(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node, name.name) for name in names)
            case ast.ImportFrom(module=str(name), level=0):
                yield node, name
            case _:
                pass


def called_names(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """Yield every call of a plain or dotted name, such as `open` or `os.environ.get`, with its name."""
    for node in walked(tree):
        if isinstance(node, ast.Call):
            yield node, dotted_name(node.func)


def dotted_name(node: ast.expr) -> str:
    """Return a plain or dotted name as it is written, and of any other expression what is written after its last dot.

    `a.b` gives `a.b`, `f(x).b` gives `.b`, and an expression without a name nothing.
    """
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    names.append(node.id if isinstance(node, ast.Name) else "")
    return ".".join(reversed(names))


def _parse(path: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    return Module(path.relative_to(ROOT).as_posix(), text, ast.parse(text, filename=str(path)))
