"""A promise in the docs names the tests that prove it, and they exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "guarantees.md"
LIMITS = ROOT / "docs" / "reference" / "limits.md"


@pytest.mark.parametrize(("page", "at_least"), [(PAGE, 25), (LIMITS, 20)], ids=["promises", "limits"])
def test_every_test_that_the_promises_name_exists(page: Path, at_least: int) -> None:
    named = set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")))
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }

    assert len(named) > at_least
    assert named <= written, f"not there: {sorted(named - written)}"


def test_every_promise_is_named_with_its_number() -> None:
    assert re.findall(r"^\| (I\d+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == [
        f"I{number}" for number in range(1, 18)
    ]
