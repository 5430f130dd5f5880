"""Patterns find what a program left in its workspace, and nothing that lies outside of it."""

import os
import socket
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agents.artifacts import matching as matching_
from agents.artifacts.matching import FOLDER, MOST_KEPT, Found, Missed, Unusable, matching, open_regular
from tests.fuzz.bounds import many

SECRET = b"outside"
# To make a file costs far more than to find it, and the more of them the more.
MANY_FILES = many(1200)


def find(workspace: Path, *patterns: str, owner: int | None = None) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return what is found, with its content, and what is missed, with the reason."""
    found: dict[str, bytes] = {}
    missed: dict[str, str] = {}
    for one in matching(workspace, patterns, owner=owner):
        if isinstance(one, Missed):
            missed[one.name] = one.reason
            continue
        found[one.name] = os.pread(one.file, 1000, 0)
        os.close(one.file)
    return found, missed


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_bytes(SECRET)
    folder = tmp_path / "workspace"
    for name in (".progress", ".tmp", "dist/deep/deeper", ".git", "logs"):
        (folder / name).mkdir(parents=True)
    for name in (
        ".progress/report",
        ".tmp/x.whl",
        ".git/config",
        ".coverage",
        "a.whl",
        "dist/a.whl",
        "dist/b.txt",
        "dist/.hidden.whl",
        "dist/deep/c.whl",
        "dist/deep/deeper/d.whl",
        "logs/1.log",
        "logs/2.log",
        "logs/10.log",
    ):
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["dist/a.whl"], ["dist/a.whl"]),
        (["*.whl"], ["a.whl"]),
        (["dist/*.whl"], ["dist/a.whl"]),
        (["**/*.whl"], ["a.whl", "dist/a.whl", "dist/deep/c.whl", "dist/deep/deeper/d.whl"]),
        (["dist/**/*.whl"], ["dist/a.whl", "dist/deep/c.whl", "dist/deep/deeper/d.whl"]),
        (["dist/**/deeper/*"], ["dist/deep/deeper/d.whl"]),
        (["dist/**"], ["dist/a.whl", "dist/b.txt", "dist/deep/c.whl", "dist/deep/deeper/d.whl"]),
        (["**/**/d.whl"], ["dist/deep/deeper/d.whl"]),
        (["*/?.log"], ["logs/1.log", "logs/2.log"]),
        (["logs/[13]*.log"], ["logs/1.log", "logs/10.log"]),
        (["logs/[!1]*.log"], ["logs/2.log"]),
        ([".coverage", ".git/*"], [".coverage", ".git/config"]),
        ([".c*"], [".coverage"]),
        (["logs/*", "logs/1.log", "**/1.log"], ["logs/1.log", "logs/10.log", "logs/2.log"]),
    ],
    ids=str,
)
def test_a_pattern_finds_each_file_that_it_names_once_and_in_order(
    workspace: Path, patterns: Sequence[str], names: Sequence[str]
) -> None:
    found, missed = find(workspace, *patterns)

    assert list(found) == sorted(names)
    assert all(content == name.encode() for name, content in found.items())
    assert missed == {}


def test_what_the_agent_keeps_in_a_workspace_is_never_found(workspace: Path) -> None:
    found, missed = find(workspace, ".tmp/*", ".progress/report", "**/report")

    assert found == {}
    assert set(missed) == {".tmp/*", ".progress/report", "**/report"}


def test_a_pattern_that_names_nothing_is_said(workspace: Path) -> None:
    assert find(workspace, "dist/*.zip", "a.whl") == ({"a.whl": b"a.whl"}, {"dist/*.zip": "there is no such file"})


@pytest.mark.parametrize("pattern", ["../outside", "dist/../../outside", "..", "*/../../outside"])
def test_dots_are_names_of_no_file(workspace: Path, pattern: str) -> None:
    found, _ = find(workspace, pattern)

    assert found == {}


def test_an_absolute_pattern_begins_in_the_workspace(workspace: Path) -> None:
    found, _ = find(workspace, str(workspace.parent / "outside"))

    assert found == {}


def test_links_are_not_followed_wherever_they_are(workspace: Path) -> None:
    (workspace / "file.link").symlink_to(workspace.parent / "outside")
    (workspace / "folder.link").symlink_to(workspace.parent)
    (workspace / "inside.link").symlink_to("a.whl")
    (workspace / "loop").symlink_to(".")
    (workspace / "dist" / "up").symlink_to("..")

    found, missed = find(workspace, "*.link", "folder.link/outside", "**/outside", "loop/a.whl", "dist/up/a.whl")

    assert found == {}
    assert missed["file.link"] == missed["inside.link"] == matching_.LINK
    assert missed["folder.link"] == missed["loop"] == missed["dist/up"] == matching_.LINK
    assert set(missed) == {"file.link", "inside.link", "folder.link", "loop", "dist/up", "**/outside"}


def test_a_workspace_that_is_a_link_is_not_entered(workspace: Path) -> None:
    link = workspace.parent / "link"
    link.symlink_to(workspace)

    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        find(link, "*.whl")


def test_what_is_no_regular_file_is_left_alone(workspace: Path) -> None:
    os.mkfifo(workspace / "fifo.x")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(workspace / "socket.x"))

        found, missed = find(workspace, "*.x")

    assert found == {}
    assert missed == {"fifo.x": matching_.NO_FILE, "socket.x": matching_.NO_FILE}


def test_a_device_is_not_even_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(os, "open", lambda *given, **_: opened.append(given))

    with pytest.raises(Unusable, match="no regular file"):
        open_regular("/dev/null")

    assert opened == []


def test_a_file_with_another_name_may_be_somebody_elses(workspace: Path) -> None:
    (workspace / "hard").hardlink_to(workspace.parent / "outside")

    assert find(workspace, "hard") == ({}, {"hard": matching_.HARD_LINK})


def test_a_file_of_another_user_is_refused_where_programs_run_as_one(workspace: Path) -> None:
    owner = os.geteuid()

    assert find(workspace, "a.whl", owner=owner + 1) == ({}, {"a.whl": matching_.OF_OTHERS})
    assert find(workspace, "a.whl", owner=owner)[0] == {"a.whl": b"a.whl"}


def test_a_folder_is_no_file(workspace: Path) -> None:
    found, missed = find(workspace, "dist", "log*")

    assert found == {}
    assert "'dist/**'" in missed["dist"]
    assert missed["log*"] == "there is no such file"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"new\nline.x", "control"),
        (b"\x1b[2J.x", "control"),
        (b"latin-\xe9.x", "lone surrogate"),
        (b"back\\slash.x", "backslash"),
        ("right-to-left-\u202e.x".encode(), "bidirectional"),
    ],
)
def test_a_name_that_no_artifact_can_have_is_refused(workspace: Path, name: bytes, reason: str) -> None:
    Path(os.fsdecode(os.fsencode(workspace) + b"/" + name)).write_bytes(b"")

    found, missed = find(workspace, "*.x")

    assert found == {}
    assert reason in missed[os.fsdecode(name)]


def test_a_path_that_is_too_long_is_refused_and_no_deeper_one_is_looked_for(workspace: Path) -> None:
    folders = [os.open(workspace, FOLDER)]
    for _ in range(300):
        os.mkdir("d", dir_fd=folders[-1])
        folders.append(os.open("d", FOLDER, dir_fd=folders[-1]))
        if len(folders) % 120 == 0:
            os.close(os.open("x.y", os.O_CREAT | os.O_WRONLY, dir_fd=folders[-1]))
    for folder in folders:
        os.close(folder)

    found, missed = find(workspace, "**/x.y")

    assert list(found) == ["d/" * 119 + "x.y"]
    [reason] = missed.values()
    assert "more than 255 bytes" in reason


def test_of_very_many_files_only_so_many_are_kept_and_that_is_said(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace / "many"
    folder.mkdir()
    handle = os.open(folder, FOLDER)
    for number in range(MANY_FILES):
        os.mknod(f"{number:06}.x", dir_fd=handle)
    os.close(handle)

    found, missed = find(workspace, "many/*.x")
    literal, _ = find(workspace, f"many/{MANY_FILES - 1:06}.x")
    monkeypatch.setattr(matching_, "MOST_SEEN", 1000)
    few, cut = find(workspace, "many/*99.x")

    assert list(found) == [f"many/{number:06}.x" for number in range(MOST_KEPT)]
    assert list(missed) == [f"many/{MOST_KEPT:06}.x"]
    assert list(literal) == [f"many/{MANY_FILES - 1:06}.x"]
    assert list(few) == [f"many/{number:06}.x" for number in range(99, 999, 100)]
    assert "more than 1000 files" in cut["many/"]


def test_a_folder_of_very_many_files_takes_no_more_memory_than_those_that_are_looked_at(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = os.open(workspace, FOLDER)
    for number in range(MANY_FILES):
        os.mknod(f"{number:0200}.x", dir_fd=handle)
    os.close(handle)
    monkeypatch.setattr(matching_, "MOST_SEEN", 100)

    tracemalloc.start()
    try:
        _, cut = find(workspace, "*.y")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert "more than 100 files" in cut["."]
    assert most < MANY_FILES * 200


def test_nothing_stays_open_when_the_search_is_given_up(workspace: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    search = matching(workspace, ["dist/**/*.whl"])
    first = next(search)
    assert isinstance(first, Found)
    os.close(first.file)

    search.close()

    assert set(Path("/proc/self/fd").iterdir()) == before


class Swapping:
    """Puts something else in the place of a file, or a folder, right after it was looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, target: Path) -> None:
        self._path = path
        self._target = target
        self._stat = os.stat
        monkeypatch.setattr(os, "stat", self.stat)

    def stat(self, path: str | Path, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        seen = self._stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        if path == self._path.name and not self._path.is_symlink():
            self._path.rename(self._path.with_name("aside"))
            self._path.symlink_to(self._target)
        return seen


def test_a_file_that_becomes_a_link_while_it_is_opened_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Swapping(monkeypatch, workspace / "a.whl", workspace.parent / "outside")

    assert find(workspace, "a.whl") == ({}, {"a.whl": matching_.LINK})


def test_a_folder_that_becomes_a_link_while_it_is_entered_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Swapping(monkeypatch, workspace / "logs", workspace.parent)

    assert find(workspace, "logs/**") == ({}, {"logs": matching_.LINK})


def test_a_folder_that_is_replaced_by_a_link_after_it_was_entered_leads_nowhere(workspace: Path) -> None:
    search: Iterator[Found | Missed] = matching(workspace, ["logs/*"])
    first = next(search)
    (workspace / "logs").rename(workspace / "aside")
    (workspace / "logs").symlink_to(workspace.parent)

    rest = list(search)

    assert [one.name for one in (first, *rest)] == ["logs/1.log", "logs/10.log", "logs/2.log"]
    for one in (first, *rest):
        assert isinstance(one, Found)
        assert os.pread(one.file, 100, 0).startswith(b"logs/")
        os.close(one.file)
