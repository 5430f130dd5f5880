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
