"""Each attempt has an empty, private directory that is gone afterwards."""

import logging
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from agents.attempts.removal import remove_tree
from agents.attempts.workspace import PROGRESS_FOLDER, Workspaces


async def test_a_workspace_is_new_and_only_for_the_agents_user(tmp_path: Path) -> None:
    task_id = uuid4()
    (tmp_path / "work" / f"{task_id}-1" / "old").mkdir(parents=True)

    async with Workspaces(tmp_path / "work").open(task_id, 1) as path:
        assert [one.name for one in path.iterdir()] == [PROGRESS_FOLDER]
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


def make_deep(path: Path, *, depth: int) -> None:
    """Make directories below one another: more than the stack, an open path or the open files could hold."""
    folder = os.open(path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 10, dir_fd=folder)
        below = os.open("d" * 10, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)


async def test_three_thousand_directories_below_one_another_are_removed(tmp_path: Path) -> None:
    async with Workspaces(tmp_path / "work").open(uuid4(), 1) as path:
        make_deep(path, depth=3000)

    assert list((tmp_path / "work").iterdir()) == []


def test_three_thousand_directories_of_an_earlier_life_are_removed_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "work" / "one").mkdir(parents=True)
    make_deep(tmp_path / "work" / "one", depth=3000)

    assert Workspaces(tmp_path / "work").remove_leftovers() == 1

    assert list((tmp_path / "work").iterdir()) == []


def test_what_a_program_has_locked_or_linked_is_removed_and_what_links_name_is_not(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    locked = tmp_path / "work" / "inner" / "locked"
    locked.mkdir(parents=True)
    (locked / "file").touch()
    (tmp_path / "work" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "work" / "dangling").symlink_to("nowhere")
    locked.chmod(0o000)
    locked.parent.chmod(0o500)

    remove_tree(tmp_path / "work")

    assert [path.name for path in tmp_path.rglob("*")] == ["outside", "kept"]


@pytest.fixture
def open_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, which every user may change; what is done in it has no rights of root."""
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o777)
    monkeypatch.chdir(place)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    yield Path()
    if is_root:
        os.seteuid(0)


@pytest.mark.parametrize("is_aside", [False, True])
@pytest.mark.parametrize("what", ["link", "link that leads nowhere", "file"])
async def test_what_a_program_has_put_in_the_place_of_its_workspace_is_removed_and_what_a_link_names_is_not(
    tmp_path: Path, what: str, is_aside: bool
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    (others / "file").touch()

    def swap(path: Path) -> None:
        if what == "file":
            path.write_text("large")
        else:
            path.symlink_to(others if what == "link" else tmp_path / "nothing")

    workspaces = Workspaces(tmp_path / "work")
    async with workspaces.open(uuid4(), 1) as workspace:
        shutil.rmtree(workspace)
        swap(workspace)
    if is_aside:  # by an agent of an earlier version
        swap(tmp_path / "work" / ".aside-1")
        assert workspaces.remove_leftovers() == 1

    assert list((tmp_path / "work").iterdir()) == []
    assert (others / "file").exists()


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o500, 0o555])
@pytest.mark.parametrize("locked", ["work", "work/one", "work/one/two", "work/one/two/three"])
def test_a_folder_that_may_not_be_changed_is_removed_at_any_depth_without_the_rights_of_root(
    open_place: Path, locked: str, mode: int
) -> None:
    folder = open_place / "work" / "one" / "two" / "three"
    folder.mkdir(parents=True)
    (folder / "file").touch()
    (open_place / locked).chmod(mode)

    remove_tree(open_place / "work")

    assert list(open_place.iterdir()) == []


@pytest.mark.parametrize("swapped", ["inner", "inner/deep"])
def test_a_folder_that_a_living_program_swaps_for_a_link_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    outside, work = tmp_path / "outside", tmp_path / "work"
    outside.mkdir(mode=0o755)
    (outside / "kept").touch()
    (work / "inner" / "deep").mkdir(parents=True)
    listed = os.scandir

    @contextmanager
    def list_and_swap(folder: int) -> Iterator[list[os.DirEntry[str]]]:
        with listed(folder) as entries:
            found = list(entries)
        yield found
        for entry in found:
            if entry.name == Path(swapped).name:
                os.rmdir(entry.name, dir_fd=folder)
                os.symlink(outside, entry.name, dir_fd=folder)

    if swapped == "inner":
        (work / "inner" / "deep").rmdir()
    monkeypatch.setattr(os, "scandir", list_and_swap)
    with suppress(OSError):
        remove_tree(work)

    assert stat.S_IMODE(outside.stat().st_mode) == 0o755
    assert (outside / "kept").exists()


async def test_what_cannot_be_removed_is_logged_and_set_aside_and_the_rest_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unlink = os.unlink

    def refuse(name: str, *, dir_fd: int | None = None) -> None:
        if name == "immutable":
            raise PermissionError(1, "Operation not permitted")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    workspaces, task_id = Workspaces(tmp_path / "work"), uuid4()
    with caplog.at_level(logging.WARNING):
        async with workspaces.open(task_id, 1) as path:
            (path / "immutable").touch()
            (path / "other").touch()

        assert [record.message for record in caplog.records] == ["workspace.not_removed"]
    [left] = (tmp_path / "work").iterdir()
    assert [one.name for one in left.iterdir()] == ["immutable"]
    async with workspaces.open(task_id, 1) as again:  # its place is free
        assert [one.name for one in again.iterdir()] == [PROGRESS_FOLDER]
    (tmp_path / "work" / "removable").mkdir()
    assert workspaces.remove_leftovers() == 1
    monkeypatch.undo()
    assert workspaces.remove_leftovers() == 1
    assert list((tmp_path / "work").iterdir()) == []
