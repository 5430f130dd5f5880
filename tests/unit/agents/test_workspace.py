"""Each attempt has an empty, private directory that is gone afterwards."""

import stat
from pathlib import Path
from uuid import uuid4

from agents.workspace import Workspaces


async def test_a_workspace_is_empty_and_only_for_the_agents_user(tmp_path: Path) -> None:
    task_id = uuid4()
    (tmp_path / "work" / f"{task_id}-1" / "old").mkdir(parents=True)

    async with Workspaces(tmp_path / "work").open(task_id, 1) as path:
        assert list(path.iterdir()) == []
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


async def test_a_workspace_is_removed_with_everything_in_it(tmp_path: Path) -> None:
    async with Workspaces(tmp_path / "work").open(uuid4(), 1) as path:
        (path / "inner").mkdir()
        (path / "inner" / "file").write_text("x")

    assert not path.exists()


async def test_a_workspace_is_kept_when_asked(tmp_path: Path) -> None:
    workspaces = Workspaces(tmp_path / "work", keep=True)
    async with workspaces.open(uuid4(), 2) as path:
        (path / "file").write_text("x")

    assert workspaces.remove_leftovers() == 0
    assert (path / "file").read_text() == "x"


def test_what_a_crash_left_behind_is_removed(tmp_path: Path) -> None:
    (tmp_path / "work" / "one" / "deep").mkdir(parents=True)
    (tmp_path / "work" / "two").mkdir()

    assert Workspaces(tmp_path / "work").remove_leftovers() == 2

    assert list((tmp_path / "work").iterdir()) == []


async def test_no_directory_is_made_for_work_that_needs_none(tmp_path: Path) -> None:
    async with Workspaces(tmp_path / "work").open(uuid4(), 1, is_needed=False) as path:
        assert not path.exists()

    assert not (tmp_path / "work").exists()
