"""The reference of security is whole: every requirement, once, with tests that exist or why it is not built."""

import re

from tests.architecture.source import ROOT

PAGE = ROOT / "docs" / "reference" / "security.md"
ROW = re.compile(r"^\| (S\d+) \| ([MS]) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`(test_\w+)`")
MODULE = re.compile(r"`([a-z_/*]+(?:\.py)?)`")
# Where a module that the page names may lie; its columns leave the beginning out.
ROOTS = ("src", "src/orchestrator", "src/orchestrator/identities", "src/agents/executors", ".")


def test_every_requirement_stands_there_once_and_in_order() -> None:
    assert [row[0] for row in ROW.findall(_text())] == [f"S{number}" for number in range(1, 30)]


def test_each_is_proven_by_tests_or_says_why_it_is_not_built() -> None:
    bare = [
        name
        for name, _, holds, _, proven in ROW.findall(_text())
        if (TEST.findall(proven) == []) is not holds.startswith("Not built: ")
    ]

    assert not bare, f"neither proven nor said not to be built: {', '.join(bare)}"


def test_every_test_that_it_names_exists() -> None:
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }

    assert set(TEST.findall(_text())) <= written, sorted(set(TEST.findall(_text())) - written)


def test_every_module_that_it_names_exists() -> None:
    lost = [
        f"{name}: {module}"
        for name, _, _, kept, _ in ROW.findall(_text())
        for module in MODULE.findall(kept)
        if not any((ROOT / root / module).exists() for root in ROOTS)
    ]

    assert not lost, "\n".join(lost)


def _text() -> str:
    return PAGE.read_text(encoding="utf-8")
