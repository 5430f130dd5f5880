"""A content is in the store whole or not at all, whatever dies, fills up, goes away or stands in its place."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from orchestrator.artifacts.model import AWAY
from orchestrator.artifacts.store import STALE_DRAFT, ContentGone, PlaceTaken, Store, StoreAway
from tests.on_disk import Disk, watched_disk
from tests.unit.orchestrator.artifacts.disks import Died, dying, left_by_power_cut

RUN = UUID(int=7)
CONTENT = b"hello world" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()
BLOB = f"blobs/{SHA[:2]}/{SHA}"
PATH = "dist/linux/a.whl"
NAMED = f"workflow_runs/{RUN}/{PATH}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "var" / "artifacts"


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    store = Store(root)
    yield store
    store.close()


def keep(store: Store, content: bytes = CONTENT, *, path: str = PATH, run: UUID = RUN) -> str:
    """Store a content, and give it a path."""
    draft = store.draft()
    try:
        half = len(content) // 2
        draft.write(content[:half])
        draft.write(content[half:])
        draft.seal()
        store.keep(draft)
        store.give_path(draft.sha256, run, path)
    finally:
        store.discard(draft)
    return draft.sha256


def read(store: Store, content: bytes = CONTENT) -> bytes:
    return store.read(hashlib.sha256(content).hexdigest(), len(content), 0, len(content))


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def drafts(root: Path) -> list[str]:
    return names_in(root / "drafts")


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_content_is_kept_once_and_named_for_each_of_its_owners(store: Store, root: Path) -> None:
    keep(store)
    keep(store, path="copy")
    keep(store, run=UUID(int=8))

    files = [
        root / BLOB,
        root / NAMED,
        root / f"workflow_runs/{RUN}/copy",
        root / f"workflow_runs/{UUID(int=8)}/{PATH}",
    ]
    assert {file.read_bytes() for file in files} == {CONTENT}
    assert len({file.stat().st_ino for file in files}) == 1
    assert drafts(root) == []
    assert read(store) == CONTENT


def test_what_is_kept_is_for_nobody_else_and_for_nobody_to_change(store: Store, root: Path) -> None:
    keep(store)

    assert stat.S_IMODE((root / BLOB).stat().st_mode) == 0o400
    folders = [path for path in root.rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (root, *folders)} == {0o700}


@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_content_of_no_or_one_byte_is_a_content(store: Store, content: bytes) -> None:
    keep(store, content)

    assert read(store, content) == content


def test_a_part_of_a_content_is_read_alone(store: Store) -> None:
    keep(store)

    assert store.read(SHA, len(CONTENT), 6, 5) == b"world"
    assert store.read(SHA, len(CONTENT), len(CONTENT) - 3, 100) == b"rld"


def steps_of_keeping(root: Path) -> int:
    """Return how many steps it takes to store the first content."""
    with watched_disk(), dying(10**6) as steps:
        keep(Store(root))
    return 10**6 - steps._left


def is_durable(disk: Disk, root: Path) -> bool:
    """Return whether a power cut would leave the content under both names."""
    files = [root / BLOB, root / NAMED]
    folders = {above for file in files for above in file.parents if above == root or root in above.parents}
    return all(disk.read(file) == CONTENT for file in files) and all(map(disk.has, folders))


def names_nothing_half(root: Path) -> bool:
    """Return whether whatever has a name below a folder is whole."""
    named = [path for part in ("blobs", "workflow_runs") for path in (root / part).rglob("*") if path.is_file()]
    return all(path.read_bytes() == CONTENT for path in named)


def test_a_store_that_dies_at_any_step_has_nothing_half_and_its_next_life_has_everything(tmp_path: Path) -> None:
    count = steps_of_keeping(tmp_path / "counted")
    assert count > 15

    for last in range(count):
        root = tmp_path / f"{last}" / "artifacts"
        root.parent.mkdir()
        with watched_disk() as disk:
            with dying(last) as steps, pytest.raises(Died):
                keep(Store(root))
            assert steps.has_died
            assert names_nothing_half(root), last
            left_by_power_cut(disk, root, cut := tmp_path / f"{last}" / "cut")
            assert names_nothing_half(cut), last

            for place in (root, cut):
                keep(Store(place))

                assert is_durable(disk, place), (last, place)


def test_a_content_that_counts_as_kept_is_there_after_a_power_cut(store: Store, root: Path) -> None:
    with watched_disk() as disk:
        keep(store)

        assert is_durable(disk, root)


def test_a_content_that_a_dead_process_left_unsynced_is_on_disk_when_another_has_kept_it(root: Path) -> None:
    keep(Store(root))  # nothing watched it, so nothing of it counts as on disk

    with watched_disk() as disk:
        keep(Store(root), path="again")

        assert disk.has(root / BLOB)
        assert disk.has(root / "blobs" / SHA[:2])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["write", "fsync", "mkdir", "link"])
def test_a_full_disk_is_told_leaves_nothing_behind_and_is_no_trouble_when_there_is_room(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    keep(store, b"before")
    with monkeypatch.context() as patched:
        patched.setattr(os, step, failing(number))
        with pytest.raises(StoreAway) as caught:
            keep(store)

    assert caught.value.reason.startswith(f"{AWAY}: its disk is full: ")
    assert drafts(root) == []
    assert names_nothing_half_but(root, b"before")
    keep(store)
    assert read(store) == CONTENT


def names_nothing_half_but(root: Path, other: bytes) -> bool:
    named = [path for part in ("blobs", "workflow_runs") for path in (root / part).rglob("*") if path.is_file()]
    return all(path.read_bytes() in (CONTENT, other) for path in named)


def test_a_store_that_goes_away_is_told_and_used_again_when_it_is_back(store: Store, root: Path) -> None:
    keep(store, b"before")
    root.rename(root.with_name("elsewhere"))

    with pytest.raises(StoreAway) as caught:
        keep(store)
    with pytest.raises(StoreAway):
        read(store, b"before")

    assert caught.value.reason == f"{AWAY}: No such file or directory"
    root.with_name("elsewhere").rename(root)
    keep(store)
    assert (read(store), read(store, b"before")) == (CONTENT, b"before")


def test_a_store_whose_disk_is_not_mounted_does_not_write_to_the_disk_below_it(store: Store, root: Path) -> None:
    keep(store, b"before")
    root.rename(root.with_name("elsewhere"))
    root.mkdir()

    with pytest.raises(StoreAway):
        keep(store)

    assert names_in(root) == []


def test_a_store_that_cannot_be_made_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises((StoreAway, PlaceTaken)):
        keep(Store(tmp_path / "file" / "artifacts"))


@pytest.mark.parametrize(
    "place",
    ["blobs", f"blobs/{SHA[:2]}", "workflow_runs", f"workflow_runs/{RUN}", f"workflow_runs/{RUN}/dist", "drafts"],
)
def test_a_symbolic_link_on_the_way_leads_nowhere(store: Store, root: Path, tmp_path: Path, place: str) -> None:
    keep(store, b"before", path="before", run=UUID(int=8))
    target = tmp_path / "outside"
    target.mkdir()
    link = root / place
    if link.exists():
        link.rename(tmp_path / "moved")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)

    with pytest.raises(PlaceTaken):
        keep(store)

    assert names_in(target) == []


@pytest.mark.parametrize("place", [BLOB, NAMED])
def test_a_symbolic_link_in_place_of_a_file_is_replaced_and_not_followed(
    store: Store, root: Path, tmp_path: Path, place: str
) -> None:
    keep(store, b"before", path="before")
    target = tmp_path / "outside"
    target.write_bytes(CONTENT)
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).symlink_to(target)

    keep(store)

    assert not (root / place).is_symlink()
    assert (root / place).read_bytes() == CONTENT
    assert (target.read_bytes(), target.stat().st_nlink) == (CONTENT, 1)


def test_a_symbolic_link_in_place_of_a_content_is_not_read(store: Store, root: Path, tmp_path: Path) -> None:
    keep(store)
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * len(CONTENT))
    (root / BLOB).unlink()
    (root / BLOB).symlink_to(secret)

    with pytest.raises(PlaceTaken):
        read(store)


@pytest.mark.parametrize("path", ["../out", "a/../../out", "/out", "", "a//b", ".", "a/.", "a\x00b", "..", "a/"])
def test_no_path_leads_out_of_the_folder_of_its_run(store: Store, root: Path, path: str) -> None:
    keep(store, path="inside")

    with pytest.raises(ValueError, match="no path below a folder"):
        store.give_path(SHA, RUN, path)

    assert names_in(root / "workflow_runs" / str(RUN)) == ["inside"]


def test_a_folder_in_place_of_a_file_is_told_and_a_file_in_place_of_a_folder(store: Store, root: Path) -> None:
    keep(store, path="a/b")

    for path in ("a", "a/b/c"):
        with pytest.raises(PlaceTaken):
            store.give_path(SHA, RUN, path)

    assert drafts(root) == []
    assert (root / "workflow_runs" / str(RUN) / "a" / "b").read_bytes() == CONTENT


def test_what_stands_at_the_path_of_a_file_that_never_counted_is_replaced(store: Store, root: Path) -> None:
    keep(store, b"never counted")

    keep(store)

    assert (root / NAMED).read_bytes() == CONTENT
    assert read(store, b"never counted") == b"never counted"


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EPERM, errno.ENOTSUP])
def test_where_a_content_gets_no_further_name_it_is_copied(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with watched_disk() as disk:
        monkeypatch.setattr(os, "link", failing(number))

        keep(store)

        assert is_durable(disk, root)
    assert (root / NAMED).stat().st_ino != (root / BLOB).stat().st_ino
    assert drafts(root) == []


@pytest.mark.parametrize("step", ["link", "replace"])
def test_a_store_on_several_file_systems_is_away_and_says_so(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, step, failing(errno.EXDEV))
        with pytest.raises(StoreAway) as caught:
            keep(store)

    assert caught.value.reason == f"{AWAY}: blobs, workflow_runs and drafts must be on one file system"
    assert drafts(root) == []


def test_a_path_is_removed_with_the_folders_that_only_led_to_it_and_a_content_alone(store: Store, root: Path) -> None:
    keep(store, path="a/b/one")
    keep(store, path="a/two")
    of_run = root / "workflow_runs" / str(RUN)

    for _ in range(2):
        store.take_path(RUN, "a/b/one")
    left = sorted(str(path.relative_to(of_run)) for path in of_run.rglob("*"))
    store.take_path(RUN, "a/two")
    for _ in range(2):
        store.remove(SHA)

    assert left == ["a", "a/two"]
    assert list((root / "workflow_runs").iterdir()) == []
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_nothing_counts_as_removed_while_the_store_is_away(store: Store, root: Path) -> None:
    keep(store, path="one")
    root.rename(root.with_name("elsewhere"))

    with pytest.raises(StoreAway):
        store.take_path(RUN, "one")
    with pytest.raises(StoreAway):
        store.remove(SHA)


def test_a_damaged_content_is_not_read_and_is_replaced_by_the_next_that_is_whole(store: Store, root: Path) -> None:
    keep(store)
    (root / BLOB).chmod(0o600)
    (root / BLOB).write_bytes(CONTENT[:100])

    with pytest.raises(ContentGone):
        read(store)
    keep(store)

    assert read(store) == CONTENT
    assert (root / NAMED).read_bytes() == CONTENT


@pytest.mark.parametrize("gone", [BLOB, f"blobs/{SHA[:2]}"])
def test_a_content_that_somebody_deleted_is_gone(store: Store, root: Path, gone: str) -> None:
    keep(store)
    (root / BLOB).unlink()
    if gone != BLOB:
        (root / gone).rmdir()

    with pytest.raises(ContentGone, match=SHA):
        read(store)


def test_a_pipe_in_place_of_a_content_keeps_nobody_waiting(store: Store, root: Path) -> None:
    keep(store)
    (root / BLOB).unlink()
    os.mkfifo(root / BLOB)

    with pytest.raises(ContentGone):
        read(store)


def test_several_processes_keep_the_same_content_at_once(root: Path) -> None:
    stores = [Store(root) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        kept = list(threads.map(lambda one: keep(one[1], path=f"by {one[0]}"), enumerate(stores)))

    assert kept == [SHA] * 8
    named = [root / "workflow_runs" / str(RUN) / f"by {number}" for number in range(8)]
    assert {path.stat().st_ino for path in named} == {(root / BLOB).stat().st_ino}
    assert drafts(root) == []


def test_another_process_that_keeps_the_same_meanwhile_leaves_one_file(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, b"before")
    other, link = Store(root), os.link

    def be_second(*arguments: Any, **named: Any) -> None:
        monkeypatch.setattr(os, "link", link)
        keep(other, path="of the first")
        link(*arguments, **named)

    monkeypatch.setattr(os, "link", be_second)
    keep(store)

    assert (root / NAMED).stat().st_ino == (root / f"workflow_runs/{RUN}/of the first").stat().st_ino


def test_drafts_that_nobody_writes_to_any_more_are_swept_away_and_others_stay(store: Store, root: Path) -> None:
    left, under_way = store.draft(), store.draft()
    left.close()
    later = (root / "drafts" / left.name).stat().st_ctime + STALE_DRAFT.total_seconds()

    assert store.sweep(later) == 0
    assert store.sweep(later + 60) == 2
    under_way.write(CONTENT)

    assert drafts(root) == []
    assert Store(root).sweep(later + 60) == 0


def test_what_is_read_or_written_when_it_was_given_up_does_no_harm(store: Store) -> None:
    keep(store)
    content, draft = store.open(SHA, len(CONTENT)), store.draft()
    content.close()
    draft.close()

    draft.write(b"more")
    draft.seal()

    assert content.read(0, 10) == b""
    assert draft.size == 0


async def test_what_is_left_to_do_is_done_when_the_store_is_closed(root: Path) -> None:
    store = Store(root)
    draft = await store.run(store.draft)
    store.close()

    store.submit(lambda: store.discard(draft))

    assert drafts(root) == []
