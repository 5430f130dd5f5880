"""The journal says what was started, also after the agent was killed in the middle of a line."""

import errno
import json
import os
from pathlib import Path
from uuid import UUID

import pytest

from agents.disk.journal import Ended, Journal
from agents.disk.journal_file import JournalFile, Line
from agents.disk.leftovers import sessions, unended
from common.messages import ResultStatus
from tests.unit.agents.test_spool import make_grant

BOOT, SESSION = "the-boot", UUID(int=1)


def make_line(number: int, *, is_last: bool = False) -> Line:
    text = json.dumps({"number": number, "is_last": is_last, "padding": "x" * 80}).encode()
    return Line((UUID(int=number), 1), text, is_last)


def open_journal(path: Path, session: UUID = SESSION) -> Journal:
    return Journal(JournalFile(path), session=session, host_boot_id=BOOT)


def lines_of(file: JournalFile) -> list[bytes]:
    return [line for line in file.read() if line]


def test_what_was_started_and_not_ended_is_found(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    ended, left = make_grant(), make_grant(attempt=9)
    with open_journal(path) as journal:
        for grant in (ended, left):
            journal.started(grant, host_boot_id=BOOT, agent_pid=1)
            journal.process_started(grant, pid=100, start_ticks=5, keeper_pid=99, keeper_ticks=4)
        journal.ended(Ended(task_id=ended.work.task_id, attempt=1, status=ResultStatus.COMPLETED))

    [one] = unended(JournalFile(path).read())

    assert (one.started.task_id, one.started.attempt, one.started.trace_id) == (left.work.task_id, 9, left.trace_id)
    assert [(process.pid, process.start_ticks) for process in one.processes] == [(100, 5)]


def test_the_boot_of_the_host_has_the_name_that_earlier_versions_read_and_wrote(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path) as journal:
        journal.started(make_grant(), host_boot_id=BOOT, agent_pid=1)

    [_, line] = lines_of(JournalFile(path))

    assert json.loads(line)["boot_id"] == BOOT
    assert [one.started.host_boot_id for one in unended([line])] == [BOOT]


def test_lines_of_earlier_versions_which_call_the_number_of_an_attempt_its_fence_are_read() -> None:
    task = {"task_id": str(UUID(int=3)), "at": "2026-11-29T10:00:00Z"}
    started = {
        **task,
        "event": "started",
        "fence": 2,
        "attempt": 2,
        "work_type": "echo",
        "boot_id": BOOT,
        "agent_pid": 1,
        "trace_id": str(UUID(int=4)),
        "request_id": str(UUID(int=5)),
    }
    process = {**task, "event": "process", "fence": 2, "pid": 100, "start_ticks": 5}
    ended = {**task, "event": "ended", "fence": 2, "status": "completed"}
    lines = [json.dumps(line).encode() for line in (started, process, ended)]

    [left] = unended(lines[:2])
    assert (left.started.attempt, [one.pid for one in left.processes]) == (2, [100])
    assert unended(lines) == []


def test_every_line_is_with_the_system_when_the_call_returns(tmp_path: Path) -> None:
    path, grant = tmp_path / "journal.jsonl", make_grant()
    with open_journal(path) as journal:
        journal.started(grant, host_boot_id=BOOT, agent_pid=1)
        assert [one.started.task_id for one in unended(JournalFile(path).read())] == [grant.work.task_id]

        journal.ended(Ended(task_id=grant.work.task_id, attempt=1, status=ResultStatus.COMPLETED))
        assert unended(JournalFile(path).read()) == []


def test_the_process_is_named_on_disk_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    path = tmp_path / "journal.jsonl"
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_bytes()))

    with open_journal(path):
        assert str(SESSION).encode() in synced[-1]


def test_of_a_process_all_is_known_as_long_as_the_host_has_run_since(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for number in (1, 2):
        with open_journal(path, UUID(int=number)):
            pass

    lines = lines_of(JournalFile(path))

    assert sessions(lines, host_boot_id=BOOT) == {UUID(int=1), UUID(int=2)}
    assert sessions(lines, host_boot_id="another boot") == frozenset()
    assert sessions(lines, host_boot_id="") == frozenset()


def test_a_start_that_cannot_be_noted_fails_and_an_end_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    grant = make_grant()
    with open_journal(tmp_path / "journal.jsonl") as journal:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            journal.started(grant, host_boot_id=BOOT, agent_pid=1)
        journal.ended(Ended(task_id=grant.work.task_id, attempt=1, status=ResultStatus.COMPLETED))

    assert "journal.failed" in caplog.text


def test_a_torn_last_line_is_left_out_and_harms_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal.jsonl"
    first, second = make_grant(), make_grant()
    with open_journal(path) as journal:
        journal.started(first, host_boot_id=BOOT, agent_pid=1)
    with path.open("ab") as file:
        file.write(b'{"event": "started", "task_')
    with open_journal(path, UUID(int=2)) as journal:
        journal.started(second, host_boot_id=BOOT, agent_pid=1)

    found = unended(JournalFile(path).read())

    assert [one.started.task_id for one in found] == [first.work.task_id, second.work.task_id]
    assert sessions(lines_of(JournalFile(path)), host_boot_id=BOOT) == {SESSION, UUID(int=2)}
    assert "journal.unreadable_lines" in caplog.text


def test_rubbish_is_no_reason_not_to_start(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(bytes(range(256)) * 10)

    assert unended(JournalFile(path).read()) == []


def test_the_journal_does_not_grow_for_ever_and_never_loses_what_is_open(tmp_path: Path) -> None:
    file = JournalFile(tmp_path / "journal.jsonl", max_bytes=2000)
    file.append(make_line(0))
    for number in range(1, 200):
        file.append(make_line(number), make_line(number, is_last=True))

    lines = [json.loads(line) for line in lines_of(file)]
    file.close()

    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 6000
    assert any(line["number"] == 0 for line in lines)
    assert lines[-1]["number"] == 199
    assert len(list(tmp_path.iterdir())) == 2


def test_a_crash_between_the_two_steps_of_a_rotation_loses_nothing(tmp_path: Path) -> None:
    file = JournalFile(tmp_path / "journal.jsonl")
    file.append(make_line(1))
    file.close()
    (tmp_path / "journal.jsonl").rename(file.previous)

    again = JournalFile(tmp_path / "journal.jsonl")
    again.append(make_line(2))
    again.close()

    assert [json.loads(line)["number"] for line in lines_of(again)] == [1, 2]


def test_a_rotation_that_failed_between_its_two_steps_is_made_up_for_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = JournalFile(tmp_path / "journal.jsonl", max_bytes=1)
    file.append(make_line(1))
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if path.name == "journal.next.jsonl":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            file.append(make_line(2))
    file.append(make_line(3))
    file.close()

    assert {json.loads(line)["number"] for line in lines_of(file)} == {1, 3}


def test_a_write_that_failed_half_way_does_not_spoil_the_next_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = JournalFile(tmp_path / "journal.jsonl")
    file.append(make_line(1))
    write = os.write

    def full(handle: int, data: bytes) -> int:
        write(handle, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            file.append(make_line(2))
    file.append(make_line(3))
    file.close()

    lines = lines_of(file)
    assert json.loads(lines[-1])["number"] == 3
    assert len(lines) == 3


def test_of_a_host_that_does_not_name_its_boot_nothing_is_known_of_earlier_processes(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(JournalFile(path), session=SESSION, host_boot_id=""):
        pass

    assert sessions(lines_of(JournalFile(path)), host_boot_id="") == frozenset()


def test_the_end_of_one_attempt_is_not_that_of_another_of_the_same_task(tmp_path: Path) -> None:
    path, first = tmp_path / "journal.jsonl", make_grant()
    second = first.model_copy(update={"attempt": 2})
    with open_journal(path) as journal:
        for grant in (first, second):
            journal.started(grant, host_boot_id=BOOT, agent_pid=1)
        journal.ended(Ended(task_id=first.work.task_id, attempt=1, status=ResultStatus.COMPLETED))

    assert [one.started.attempt for one in unended(JournalFile(path).read())] == [2]
