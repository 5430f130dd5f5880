"""What the agent calls kept survives a power cut, whole and by name, on a disk that is slow to take it or full."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agents.disk.journal import Journal
from agents.disk.journal_file import JournalFile, Line
from agents.disk.leftovers import unended
from agents.disk.spool import Spool
from agents.gate.trust import TRUST_FILE, remember_keys
from agents.identity.credential import CREDENTIAL_FILE, Credential, keep_credential
from agents.identity.registration import IDENTITY_FILE, open_identity
from agents.settings import AgentSettings
from common.durable import write_file
from common.private import make_private
from common.signing.keys import PrivateKey
from tests.on_disk import Disk, watched_disk
from tests.unit.agents.test_spool import files, make_grant, opened, written

BOOT, SESSION = "the-boot", UUID(int=1)
FEW_BYTES = 7


@pytest.fixture
def disk() -> Iterator[Disk]:
    with watched_disk() as disk:
        yield disk


@pytest.fixture
def little_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes a few bytes of what it is given, as it may."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:FEW_BYTES]))


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_after(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk take so many bytes and no more."""
    write, room = os.write, taken

    def write_what_fits(handle: int, data: bytes) -> int:
        nonlocal room
        if not room:
            full()
        size = write(handle, data[:room])
        room -= size
        return size

    monkeypatch.setattr(os, "write", write_what_fits)


def open_journal(path: Path) -> Journal:
    return Journal(JournalFile(path), session=SESSION, host_boot_id=BOOT)


def test_a_result_that_counts_as_kept_is_there_after_a_power_cut(tmp_path: Path, disk: Disk) -> None:
    spool, results = opened(tmp_path), [written() for _ in range(3)]

    for result in results:
        assert spool.keep([result]) == [None]
        kept = disk.read(files(tmp_path)[0])
        assert kept is not None
        assert kept.endswith(result.body + b"\n")


def test_a_result_in_a_further_file_is_there_after_a_power_cut(tmp_path: Path, disk: Disk) -> None:
    spool, results = opened(tmp_path, file_bytes=1), [written() for _ in range(3)]

    assert [spool.keep([result]) for result in results] == [[None]] * 3

    assert [disk.read(path) for path in files(tmp_path)] == [result.body + b"\n" for result in results]


def test_a_result_whose_file_cannot_be_named_on_disk_does_not_count_as_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_for_folders(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().is_dir():
            raise OSError(errno.EIO, "Input/output error")

    spool, after = opened(tmp_path), written()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail_for_folders)
        [outcome] = spool.keep([written()])

    assert isinstance(outcome, OSError)
    assert spool.keep([after]) == [None]
    assert Spool(tmp_path).open() == [after.key]


def test_a_result_is_kept_whole_by_a_system_that_takes_little_at_a_time(
    tmp_path: Path, disk: Disk, little_at_a_time: None
) -> None:
    spool, results = opened(tmp_path), [written(), written()]

    assert spool.keep(results) == [None, None]

    assert disk.read(files(tmp_path)[0]) == b"".join(result.body + b"\n" for result in results)
    assert Spool(tmp_path).open() == [result.key for result in results]


@pytest.mark.parametrize("taken", [0, 100])
def test_a_spool_on_a_full_disk_keeps_nothing_spoils_nothing_and_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    spool, before, after = opened(tmp_path, file_bytes=1), written(), written()
    spool.keep([before])
    with monkeypatch.context() as patched:
        full_after(taken, patched)
        outcomes = spool.keep([written(), written()])

    assert [isinstance(outcome, OSError) for outcome in outcomes] == [True, True]
    assert spool.keep([after]) == [None]
    assert Spool(tmp_path).open() == [before.key, after.key]
    assert [path.stat().st_size for path in files(tmp_path)] == [len(before.body) + 1, len(after.body) + 1]


def test_a_spool_that_can_make_no_file_says_so_and_goes_on_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, after = opened(tmp_path), written()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        [outcome] = spool.keep([written()])

    assert isinstance(outcome, OSError)
    assert spool.keep([after]) == [None]
    assert Spool(tmp_path).open() == [after.key]


def test_a_result_on_a_full_disk_that_cannot_be_cut_off_either_is_put_aside_by_the_next_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, before, after = opened(tmp_path), written(), written()
    spool.keep([before])
    with monkeypatch.context() as patched:
        full_after(100, patched)
        patched.setattr(os, "ftruncate", full)
        [outcome] = spool.keep([written()])

    assert isinstance(outcome, OSError)
    assert spool.keep([after]) == [None]
    assert Spool(tmp_path).open() == [before.key, after.key]


def test_the_journal_names_its_process_after_a_power_cut(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "journal.jsonl"

    with open_journal(path):
        assert disk.read(path) == path.read_bytes()

    assert str(SESSION).encode() in path.read_bytes()


def test_a_journal_whose_first_process_was_killed_before_its_name_was_on_disk_is_there_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(handle: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "journal.jsonl"
    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(os, "fsync", killed)
        open_journal(path)

    with watched_disk() as disk, open_journal(path):
        assert disk.read(path) == path.read_bytes()


def test_a_line_of_the_journal_is_whole_when_the_system_takes_little_at_a_time(
    tmp_path: Path, little_at_a_time: None
) -> None:
    path, grants = tmp_path / "journal.jsonl", [make_grant(), make_grant()]
    with open_journal(path) as journal:
        for grant in grants:
            journal.started(grant, host_boot_id=BOOT, agent_pid=1)

    left = unended(JournalFile(path).read())

    assert [one.started.task_id for one in left] == [grant.work.task_id for grant in grants]


def test_a_journal_that_a_full_disk_keeps_from_growing_into_a_new_file_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    file = JournalFile(path, max_bytes=1)
    file.append(Line((UUID(int=1), 1), b'{"number": 1}'))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            file.append(Line((UUID(int=2), 1), b'{"number": 2}'))
    file.append(Line((UUID(int=3), 1), b'{"number": 3}'))
    file.close()

    assert {json.loads(line)["number"] for line in JournalFile(path).read() if line} == {1, 3}


def test_a_file_takes_its_name_when_its_content_is_on_disk_and_not_before(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, little_at_a_time: None
) -> None:
    at_that_time: list[bytes | None] = []
    replace, path = Path.replace, tmp_path / "file"

    def look(draft: Path, target: Path) -> Path:
        at_that_time.append(disk.content_of(draft))
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", look)
    path.write_bytes(b"old")

    write_file(path, b"a new content")

    assert at_that_time == [b"a new content"]
    assert disk.read(path) == b"a new content"


@pytest.mark.parametrize("taken", [0, 5])
def test_a_file_that_a_full_disk_does_not_take_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patched:
        full_after(taken, patched)
        with pytest.raises(OSError, match="No space"):
            write_file(path, b"a new content")

    assert path.read_bytes() == b"old"
    write_file(path, b"a new content")
    assert path.read_bytes() == b"a new content"


def test_a_file_of_which_it_is_not_known_what_is_on_disk_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space"):
        write_file(path, b"new")

    assert path.read_bytes() == b"old"


def test_keys_that_an_agent_is_to_trust_are_there_after_a_power_cut(tmp_path: Path, disk: Disk) -> None:
    key = PrivateKey.new().public

    remember_keys(tmp_path, key.pem())

    kept = disk.read(tmp_path / TRUST_FILE)
    assert kept is not None
    assert list(json.loads(kept)["keys"]) == [key.key_id]


def test_what_an_agent_got_for_its_enrolment_token_is_there_after_a_power_cut(tmp_path: Path, disk: Disk) -> None:
    state, agent_id = tmp_path / "agent", uuid4()

    keep_credential(state, Credential(agent_id, "infra", "cha_token"))

    identity, credential = disk.read(state / IDENTITY_FILE), disk.read(state / CREDENTIAL_FILE)
    assert identity is not None
    assert json.loads(identity) == {"agent_id": str(agent_id), "agent_type": "infra"}
    assert credential is not None
    assert json.loads(credential) == {"token": "cha_token"}


def test_a_directory_that_was_made_for_the_agent_is_there_after_a_power_cut(tmp_path: Path, disk: Disk) -> None:
    make_private(tmp_path / "above" / "state")

    assert disk.has(tmp_path / "above")
    assert disk.has(tmp_path / "above" / "state")


def test_an_agent_that_has_its_journal_keeps_its_identity_and_its_spool_after_a_power_cut(
    tmp_path: Path, disk: Disk
) -> None:
    state = tmp_path / "agent"
    with open_identity(AgentSettings.load(state_dir=state), work_types=["echo"]) as identity:
        opened(state / "spool")
        with open_journal(state / "journal.jsonl"):
            kept = disk.read(state / IDENTITY_FILE)

    assert kept is not None
    assert json.loads(kept)["agent_id"] == str(identity.agent_id)
    assert disk.has(state)
    assert disk.has(state / "spool")
