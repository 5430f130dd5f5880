"""The page on an agent's state directory lists what repairs leave there, and nothing else."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agents.repairs.conftest import Repair
from tests.unit.agents.repairs.workshop import Workshop

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "agent-state.md"
NAMES = re.compile(r"^\| (?P<names>`repairs/[^|]+) \|", re.MULTILINE)
PARTS = {
    "<task_id>": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "<attempt>": r"[1-9][0-9]*",
    "<key>": r"shop\.web",
    "<sha256>": r"[0-9a-f]{64}",
    "<step>": "(analyze|patch|build|restart|verify|rollback)",
}


def listed() -> dict[str, re.Pattern[str]]:
    """Return each name of the page with the pattern that it stands for; a folder's name ends with a slash."""
    names = [name for row in NAMES.finditer(PAGE.read_text()) for name in re.findall(r"`([^`]+)`", row["names"])]
    return {
        name: re.compile("".join(PARTS.get(part) or re.escape(part) for part in re.split(r"(<\w+>)", name)))
        for name in names
    }


def names_below(state_dir: Path) -> set[str]:
    """Return what is there; of the copy of a workspace only that it is there."""
    found = set[str]()
    for folder, folders, files in os.walk(state_dir):
        place = Path(folder).relative_to(state_dir)
        found.update((place / name).as_posix() for name in files)
        found.update(f"{(place / name).as_posix()}/" for name in folders)
        folders[:] = [name for name in folders if not name.endswith(".worktree")]
    return found


async def test_the_page_lists_what_repairs_leave_in_the_state_directory(
    workshop: Workshop, repair: Repair, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, replace = set[str](), Path.replace

    def looking(path: Path, *arguments: Any) -> Path:
        seen.update(names_below(workshop.state_dir))
        return replace(path, *arguments)

    monkeypatch.setattr(Path, "replace", looking)
    prepared = await repair(steps=["analyze", "patch", "build"])
    await repair(steps=["restart", "verify"], patch=None, resumes=str(prepared.task_id))
    seen |= names_below(workshop.state_dir)

    names = listed()
    assert names
    assert sorted(name for name in seen if not any(one.fullmatch(name) for one in names.values())) == []
    assert sorted(name for name, one in names.items() if not any(map(one.fullmatch, seen))) == []
    assert not workshop.store.worktree("shop.web").exists()
