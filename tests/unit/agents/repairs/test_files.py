"""Files of a workspace are changed as a whole, and only inside it."""

import os
from pathlib import Path
from typing import Any

import pytest

from agents.repairs import files
from agents.repairs.failures import StepFailed
from agents.repairs.state import Content


def content(mode: int = 0o640) -> Content:
    return Content(sha256="", mode=mode, uid=os.geteuid(), gid=os.getegid())


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_its_permissions_and_the_folders_that_it_needs(tmp_path: Path) -> None:
    files.write(tmp_path, "deep/er/new.txt", content(), b"text")

    place = tmp_path / "deep" / "er" / "new.txt"
    assert (place.read_bytes(), place.stat().st_mode & 0o777) == (b"text", 0o640)
    assert names_in(place.parent) == ["new.txt"]


def test_what_is_there_is_replaced_and_never_written_into(tmp_path: Path) -> None:
    place = tmp_path / "app.txt"
    place.write_text("old")
    with place.open() as held:
        files.write(tmp_path, "app.txt", content(), b"new")
        assert held.read() == "old"

    assert place.read_text() == "new"


def test_a_file_is_seen_with_its_digest_and_permissions(tmp_path: Path) -> None:
    (tmp_path / "app.txt").write_text("text")
    (tmp_path / "app.txt").chmod(0o600)

    found = files.look_at(tmp_path, "app.txt")

    assert found is not None
    assert found[0].sha256 == "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1"
    assert (found[0].mode, found[1]) == (0o600, b"text")
    assert files.look_at(tmp_path, "missing") is None
    assert files.look_at(tmp_path, "app.txt/below") is None


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")

    for name in ("folder", "link", "pipe"):
        with pytest.raises(StepFailed, match=name):
            files.look_at(tmp_path, name)


@pytest.mark.parametrize("path", ["link/app.txt", "link/deep/app.txt"])
def test_nothing_is_read_or_written_behind_a_link(tmp_path: Path, path: str) -> None:
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    top.mkdir()
    elsewhere.mkdir()
    (top / "link").symlink_to(elsewhere)

    with pytest.raises(StepFailed, match="behind a symbolic link"):
        files.write(top, path, content(), b"text")
    with pytest.raises(StepFailed, match="behind a symbolic link"):
        files.look_at(top, path)
    with pytest.raises(StepFailed, match="behind a symbolic link"):
        files.remove(top, path)

    assert names_in(elsewhere) == []


def test_folders_that_are_missing_are_known_and_removed_when_they_are_empty(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    missing = files.folders_missing(tmp_path, ["a/b/one", "a/two", "there/three", "four"])
    files.write(tmp_path, "a/b/one", content(), b"")
    files.write(tmp_path, "a/kept", content(), b"")
    files.remove(tmp_path, "a/b/one")

    files.remove_folders(tmp_path, missing)

    assert missing == ["a", "a/b"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "kept", "there"]


def test_what_a_crash_left_of_writing_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".app.txt.chiffon-new").write_text("half")

    files.remove_draft(tmp_path, "app.txt")
    files.remove_draft(tmp_path, "never/was.txt")

    assert names_in(tmp_path) == []


def test_nothing_is_written_through_a_link_that_takes_the_place_of_a_folder_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top, elsewhere, opened = tmp_path / "top", tmp_path / "elsewhere", os.open
    (top / "deep").mkdir(parents=True)
    elsewhere.mkdir()

    def swapping(path: str | Path, *words: Any, **named: Any) -> int:
        if str(path).endswith(".chiffon-new"):
            (top / "deep").rename(top / "moved")
            (top / "deep").symlink_to(elsewhere)
        return opened(path, *words, **named)

    monkeypatch.setattr(os, "open", swapping)
    files.write(top, "deep/app.txt", content(), b"text")

    assert names_in(elsewhere) == []
    assert names_in(top / "moved") == ["app.txt"]


def test_what_has_the_name_of_a_draft_holds_nothing_up_and_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    os.mkfifo(tmp_path / ".pipe.chiffon-new")
    (tmp_path / ".link.chiffon-new").symlink_to("precious")

    for name in ("pipe", "link"):
        files.write(tmp_path, name, content(), b"new")

    assert (tmp_path / "pipe").read_text() == (tmp_path / "link").read_text() == "new"
    assert (tmp_path / "precious").read_text() == "text"
