"""What is kept is on disk until it is stored, whatever happens to the agent and its disk."""

import errno
import hashlib
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agents.artifacts import spool as spool_
from agents.artifacts.matching import Unusable
from agents.artifacts.spool import INDEX, RESERVED_BYTES, ArtifactSpool
from common.redaction.values import Values
from tests.on_disk import watched_disk
from tests.unit.agents.artifacts.killing import FORGOTTEN, KEPT
from tests.unit.agents.artifacts.making import keep, make_owner, make_spool, owed, reopened

ROOT = Path(__file__).parents[4]


def files_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "artifacts").iterdir()}


def test_what_is_kept_lies_under_its_digest_and_is_owed_by_the_next_life(tmp_path: Path) -> None:
    content = b"some text\n"
    artifact = keep(make_spool(tmp_path), content, tmp_path, name="dist/out.txt", owner=make_owner(3, attempt=2))

    assert (artifact.sha256, artifact.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (artifact.name, artifact.type, artifact.owner) == ("dist/out.txt", "file", make_owner(3, attempt=2))
    assert (tmp_path / "artifacts" / artifact.sha256).read_bytes() == content
    assert reopened(tmp_path) == [artifact]
    assert files_in(tmp_path) == {INDEX, artifact.sha256}


def test_only_the_user_of_the_agent_can_read_it(tmp_path: Path) -> None:
    artifact = keep(make_spool(tmp_path), b"x", tmp_path)

    modes = [(tmp_path / "artifacts" / name).stat().st_mode & 0o777 for name in (".", artifact.sha256, INDEX)]
    assert modes == [0o700, 0o600, 0o600]


def test_files_that_hold_the_same_lie_there_once_until_the_last_of_them_is_forgotten(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    first, second = (keep(spool, b"same", tmp_path, name=name) for name in ("a", "b"))
    assert files_in(tmp_path) == {INDEX, first.sha256}

    spool.forget([first.key])
    assert spool.read(second, 0, 100) == b"same"
    assert owed(tmp_path) == [second]

    spool.forget([second.key])
    assert files_in(tmp_path) == {INDEX}
    assert owed(tmp_path) == []


def test_a_file_is_read_in_pieces(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    artifact = keep(spool, b"0123456789", tmp_path)

    assert [spool.read(artifact, at, 4) for at in (0, 4, 8)] == [b"0123", b"4567", b"89"]


def test_a_file_that_is_not_there_as_it_was_is_not_read(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    artifact = keep(spool, b"0123456789", tmp_path)
    os.truncate(tmp_path / "artifacts" / artifact.sha256, 5)

    with pytest.raises(OSError, match="fewer bytes"):
        spool.read(artifact, 4, 4)


def test_the_same_kept_again_is_kept_once_and_another_content_is_refused(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    artifact = keep(spool, b"one", tmp_path)

    assert keep(spool, b"one", tmp_path) == artifact
    with pytest.raises(Unusable, match="another file of that name"):
        keep(spool, b"two", tmp_path)

    assert owed(tmp_path) == [artifact]
    assert files_in(tmp_path) == {INDEX, artifact.sha256}


def test_all_that_wait_have_a_limit_together_which_the_same_content_does_not_use_twice(tmp_path: Path) -> None:
    spool = make_spool(tmp_path, total=10)
    first = keep(spool, b"123456", tmp_path, name="a")
    keep(spool, b"123456", tmp_path, name="b")

    with pytest.raises(Unusable, match=r"6 bytes of other files wait.*max_artifacts_bytes"):
        keep(spool, b"12345", tmp_path, name="c")

    assert files_in(tmp_path) == {INDEX, first.sha256}
    spool.forget([artifact.key for artifact in owed(tmp_path)])
    keep(spool, b"12345", tmp_path, name="c")


def test_the_limit_counts_what_an_earlier_life_left(tmp_path: Path) -> None:
    make_spool(tmp_path)
    keep(make_spool(tmp_path), b"123456", tmp_path)

    with pytest.raises(Unusable, match="6 bytes of other files wait"):
        keep(make_spool(tmp_path, total=10), b"12345", tmp_path, name="c")


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("breaks", ["copy", "sync", "name", "line"])
def test_on_a_full_disk_nothing_is_kept_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    spool = make_spool(tmp_path)
    before = keep(spool, b"before", tmp_path, name="before")
    with monkeypatch.context() as patched:
        match breaks:
            case "copy":
                patched.setattr("agents.artifacts.copying.write_all", fail)
            case "sync":
                patched.setattr(spool_, "sync", fail)
            case "name":
                patched.setattr(spool_, "sync_folder", fail)
            case "line":
                patched.setattr(spool_, "write_all", fail)
        with pytest.raises(OSError, match="No space left"):
            keep(spool, b"full", tmp_path, name="full")

    assert files_in(tmp_path) == {INDEX, before.sha256}
    after = keep(spool, b"full", tmp_path, name="full")
    assert owed(tmp_path) == [before, after]


def test_a_line_that_a_full_disk_cut_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = make_spool(tmp_path)
    before = keep(spool, b"before", tmp_path, name="before")

    def cut(handle: int, data: bytes) -> None:
        os.write(handle, data[: len(data) // 2])
        fail()

    with monkeypatch.context() as patched:
        patched.setattr(spool_, "write_all", cut)
        with pytest.raises(OSError, match="No space left"):
            keep(spool, b"full", tmp_path, name="full")
    after = keep(spool, b"after", tmp_path, name="after")

    assert reopened(tmp_path) == [before, after]


def test_so_much_of_the_disk_stays_free_that_results_find_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = make_spool(tmp_path)
    found = os.statvfs(tmp_path)

    class Found:
        f_frsize = 1
        f_bavail = RESERVED_BYTES + 3

    monkeypatch.setattr(os, "statvfs", lambda _: Found)
    keep(spool, b"123", tmp_path, name="fits")
    with pytest.raises(Unusable, match="no room"):
        keep(spool, b"1234", tmp_path, name="does not")

    assert found.f_bavail > 0


def test_an_agent_starts_on_a_full_disk_and_sends_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = keep(make_spool(tmp_path), b"kept", tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(spool_, "write_file", fail)
        spool = ArtifactSpool(tmp_path / "artifacts", limit=100, total=100)

        assert spool.open() == [artifact]

    assert "artifact.index_not_written" in caplog.messages
    more = keep(spool, b"more", tmp_path, name="more")
    assert owed(tmp_path) == [artifact, more]


@pytest.mark.parametrize("torn", [b'{"event":"kept","task_', b"\x00" * 100, b"[]", b'{"event":"other"}', b"\xff"])
def test_a_line_that_says_nothing_is_left_out(tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture) -> None:
    artifact = keep(make_spool(tmp_path), b"kept", tmp_path)
    with (tmp_path / "artifacts" / INDEX).open("ab") as index:
        index.write(torn)

    assert reopened(tmp_path) == [artifact]
    assert "artifact.unreadable_line" in caplog.messages


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_file_whose_content_is_lost_is_owed_no_more_and_that_is_logged(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    spool = make_spool(tmp_path)
    lost, whole = keep(spool, b"lost", tmp_path, name="a"), keep(spool, b"whole", tmp_path, name="b")
    place = tmp_path / "artifacts" / lost.sha256
    if damage == "gone":
        place.unlink()
    else:
        os.truncate(place, 2)

    assert reopened(tmp_path) == [whole]
    assert [record.levelno for record in caplog.records if record.message == "artifact.lost"] == [logging.WARNING]
    assert files_in(tmp_path) == {INDEX, whole.sha256}


def test_drafts_and_content_that_no_line_names_go_at_the_start(tmp_path: Path) -> None:
    artifact = keep(make_spool(tmp_path), b"kept", tmp_path)
    (tmp_path / "artifacts" / ".draft-1").write_bytes(b"half")
    (tmp_path / "artifacts" / ("0" * 64)).write_bytes(b"orphan")

    assert reopened(tmp_path) == [artifact]
    assert files_in(tmp_path) == {INDEX, artifact.sha256}


def test_the_index_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_, "INDEX_BYTES", 2000)
    spool = make_spool(tmp_path)
    staying = keep(spool, b"staying", tmp_path, name="staying")
    for number in range(50):
        spool.forget([keep(spool, b"passing", tmp_path, name=f"passing-{number}").key])

    assert (tmp_path / "artifacts" / INDEX).stat().st_size < 3000
    assert owed(tmp_path) == [staying]


def test_a_removal_that_the_disk_does_not_take_sends_it_once_more_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = make_spool(tmp_path)
    first, second = keep(spool, b"1", tmp_path, name="a"), keep(spool, b"2", tmp_path, name="b")
    with monkeypatch.context() as patched:
        patched.setattr(spool_, "write_all", fail)
        spool.forget([first.key])

    assert "artifact.not_forgotten" in caplog.messages
    assert reopened(tmp_path) == [second]


def test_the_order_of_syncs_survives_a_power_cut(tmp_path: Path) -> None:
    with watched_disk() as disk:
        spool = make_spool(tmp_path)
        artifact = keep(spool, b"content", tmp_path)
        place, index = (tmp_path / "artifacts" / name for name in (artifact.sha256, INDEX))

        assert disk.read(place) == b"content"
        line = disk.read(index)

    assert line is not None
    assert artifact.sha256.encode() in line
    # The content has its name before a line says that it is there.
    assert disk.synced[-2:] == [index.parent, index]


def test_killed_at_any_point_an_agent_owes_what_it_kept_and_nothing_that_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # of many lives, none of which loses power
    subprocess.run(
        [sys.executable, "-m", "tests.unit.agents.artifacts.killing", str(tmp_path)],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
    )
    contents = dict(KEPT)
    lives = sorted(int(path.name) for path in tmp_path.iterdir() if path.is_dir())
    whole = 0
    for number in lives:
        folder = tmp_path / str(number)
        path = folder.with_suffix(".said")
        said = path.read_text().splitlines() if path.exists() else []
        left = reopened(folder)
        names = {artifact.name for artifact in left}

        kept = {line.removeprefix("kept ") for line in said if line.startswith("kept ")}
        assert names >= kept - ({FORGOTTEN} if "forgetting" in said else set()), number
        assert FORGOTTEN not in names or "over" not in said, number
        for artifact in left:
            content = (folder / "artifacts" / artifact.sha256).read_bytes()
            assert content == contents[artifact.name], number
            assert hashlib.sha256(content).hexdigest() == artifact.sha256, number
        assert files_in(folder) == {INDEX, *(artifact.sha256 for artifact in left)}, number
        assert reopened(folder) == left, number
        keep(make_spool(folder), b"more", folder, name="more", values=Values())
        assert {artifact.name for artifact in reopened(folder)} == names | {"more"}, number
        whole += "over" in said

    assert len(lives) > 50
    assert whole == 1


def test_attempts_that_keep_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    folders = [tmp_path / str(number) for number in range(8)]

    def work(folder: Path) -> None:
        folder.mkdir()
        for number in range(10):
            owner = make_owner(int(folder.name) + 1)
            artifact = keep(spool, f"{number % 3}".encode(), folder, name=f"{number}", owner=owner)
            if number % 2:
                spool.forget([artifact.key])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, folders))

    left = reopened(tmp_path)
    assert len(left) == 8 * 5
    assert files_in(tmp_path) == {INDEX, *(artifact.sha256 for artifact in left)}
