"""Files move between the folders of a spool without being lost, replaced or torn."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chiffon.spool.folders import BadFile, Folders, SpoolTaken, open_folders


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Folders]:
    with open_folders(tmp_path) as opened:
        yield opened


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_oldest_comes_first_and_drafts_are_not_seen(folders: Folders) -> None:
    for place, name in enumerate(("new.json", "old.json", "old-too.json", ".hidden.json", "draft.json.tmp", "x.txt")):
        path = folders.incoming / name
        path.write_text("{}")
        os.utime(path, ns=(0, 50 if place == 0 else 7))

    assert [found.name for found in folders.waiting()] == ["old-too.json", "old.json", "new.json"]


def test_a_directory_is_for_one_spool(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(SpoolTaken, match="Another `chiffon spool` uses"), open_folders(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolTaken, match="cannot be used"), open_folders(tmp_path / "file"):
        pass


def test_what_is_put_back_is_the_same_and_never_replaces_what_was_dropped_meanwhile(folders: Folders) -> None:
    (folders.incoming / "a.json").write_bytes(b"first")
    os.utime(folders.incoming / "a.json", ns=(1, 1))
    folders.claim("a.json")
    assert folders.put_back("a.json")
    [found] = folders.waiting()
    assert ((folders.incoming / "a.json").read_bytes(), found.mtime) == (b"first", 1)

    folders.claim("a.json")
    (folders.incoming / "a.json").write_bytes(b"second")

    assert not folders.put_back("a.json")
    assert (folders.incoming / "a.json").read_bytes() == b"second"
    assert (folders.processing / "a.json").read_bytes() == b"first"


def test_a_crash_in_the_middle_of_putting_back_leaves_one_file(folders: Folders) -> None:
    (folders.processing / "a.json").write_bytes(b"first")
    (folders.incoming / "a.json").hardlink_to(folders.processing / "a.json")
    (folders.outgoing / ".half.json.new").write_text("{")

    folders.tidy()

    assert (names(folders.incoming), names(folders.processing), names(folders.outgoing)) == (["a.json"], [], [])


def test_what_is_no_ordinary_readable_file_of_a_decent_size_is_not_read(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    (folders.incoming / "link.json").symlink_to(tmp_path / "secret")
    (folders.incoming / "folder.json").mkdir()
    os.mkfifo(folders.incoming / "pipe.json")
    (folders.incoming / "large.json").write_bytes(b"x" * 11)

    for name, reason in (("link", "symbolic"), ("folder", "regular"), ("pipe", "regular"), ("large", "10 bytes")):
        with pytest.raises(BadFile, match=reason):
            folders.read(folders.incoming, f"{name}.json", limit=10)
        folders.claim(f"{name}.json")
        folders.fail(folders.processing, f"{name}.json", {"reason": reason})

    assert (tmp_path / "secret").read_text() == "{}"
    assert len(names(folders.failed)) == 8
    assert names(folders.processing) == names(folders.incoming) == []


def test_an_earlier_failure_of_the_same_name_stays(folders: Folders) -> None:
    for number in range(3):
        (folders.processing / "a.json").write_text(str(number))
        folders.fail(folders.processing, "a.json", {"reason": f"reason {number}"})

    found = {name: (folders.failed / name).read_text() for name in ("a.json", "a.2.json", "a.3.json")}
    assert list(found.values()) == ["0", "1", "2"]
    assert json.loads((folders.failed / "a.2.json.reason.json").read_text()) == {"file": "a.json", "reason": "reason 1"}


def test_a_result_written_twice_is_one_file_and_one_of_another_task_stays(folders: Folders) -> None:
    for task in ("x", "x", "y"):
        (folders.processing / "a.json").write_text("")
        folders.finish("a.json", "c-m-t.json", {"task_id": task})

    assert names(folders.outgoing) == ["c-m-t-y.json", "c-m-t.json"]
    assert json.loads((folders.outgoing / "c-m-t.json").read_text()) == {"task_id": "x"}
    assert names(folders.processing) == []


def test_a_claimed_file_stays_when_another_of_its_name_was_dropped(folders: Folders) -> None:
    (folders.incoming / "a.json").write_bytes(b"first")
    folders.claim("a.json")
    (folders.incoming / "a.json").write_bytes(b"second")

    folders.tidy()

    assert (folders.processing / "a.json").read_bytes() == b"first"
    assert (folders.incoming / "a.json").read_bytes() == b"second"


def test_a_file_of_exactly_the_largest_size_is_read(folders: Folders) -> None:
    (folders.incoming / "large.json").write_bytes(b"x" * 10)

    assert folders.read(folders.incoming, "large.json", limit=10) == b"x" * 10


@pytest.fixture
def steps(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to files, in order: `disk` when one is brought to disk, `name` when it gets its name, `gone`."""
    done: list[str] = []
    replace, unlink = Path.replace, Path.unlink

    def sync(handle: int) -> None:
        found = os.fstat(handle).st_ino
        [path] = [path for path in folders.incoming.parent.rglob("*") if path.stat().st_ino == found]
        done.append(f"disk {path.name}")

    def name(path: Path, target: Path) -> Path:
        done.append(f"name {target.name}")
        return replace(path, target)

    def remove(path: Path, missing_ok: bool = False) -> None:
        done.append(f"gone {path.name}")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", name)
    monkeypatch.setattr(Path, "unlink", remove)
    return done


def test_a_result_is_whole_and_on_disk_before_what_asked_for_it_is_gone(folders: Folders, steps: list[str]) -> None:
    (folders.incoming / "a.json").write_text("{}")
    folders.claim("a.json")

    folders.finish("a.json", "result.json", {"task_id": "x"})

    assert steps == ["disk .result.json.new", "name result.json", "disk outgoing", "gone a.json", "disk processing"]


def test_the_reason_is_on_disk_before_a_file_is_set_aside(folders: Folders, steps: list[str]) -> None:
    (folders.incoming / "a.json").write_text("{")
    folders.claim("a.json")

    folders.fail(folders.processing, "a.json", {"reason": "torn"})

    assert steps == ["disk .a.json.reason.json.new", "name a.json.reason.json", "disk failed", "disk failed"]
