"""A result that was kept is there after a crash, and nothing that is there can stop the agent."""

import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agents.executors.base import Outcome
from agents.results import work_result
from agents.spool import ASIDE, Key, Spool, SpoolFull, key_of
from common.messages import GrantedTask, ResultStatus, WorkRequest
from common.protocol import WorkResultEnvelope

AGENT = UUID(int=7)


def make_grant(*, fence: int = 1) -> GrantedTask:
    return GrantedTask(
        claim_id=uuid4(),
        work=WorkRequest(task_id=uuid4(), work_type="echo"),
        trace_id=uuid4(),
        request_id=uuid4(),
        attempt=1,
        fence=fence,
        lease_seconds=60.0,
    )


def make_result(*, fence: int = 1) -> WorkResultEnvelope:
    return work_result(AGENT, make_grant(fence=fence), Outcome(ResultStatus.COMPLETED, exit_code=0), output="x")


def opened(folder: Path, *, max_files: int = 100) -> Spool:
    spool = Spool(folder, max_files=max_files)
    spool.open()
    return spool


def test_what_was_kept_is_found_after_a_restart(tmp_path: Path) -> None:
    first, second = make_result(), make_result(fence=5)
    assert opened(tmp_path / "spool").keep([first, second]) == [None, None]

    again = Spool(tmp_path / "spool")

    assert set(again.open()) == {key_of(first), key_of(second)}
    assert again.read(key_of(first)) == first


def test_what_is_stored_is_gone_for_good(tmp_path: Path) -> None:
    spool, result = opened(tmp_path), make_result()
    spool.keep([result])

    spool.forget([key_of(result), Key(uuid4(), 1)])

    assert Spool(tmp_path).open() == []


def test_content_and_name_are_on_disk_before_it_counts_as_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def note(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").resolve().name)

    spool, result = opened(tmp_path / "spool"), make_result()
    monkeypatch.setattr(os, "fsync", note)

    spool.keep([result])

    assert sorted(synced) == sorted([f"{result.payload.task_id}-1.json", "spool"])


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"protocol_version": "1.0", "type": "work_res'])
def test_a_broken_file_is_moved_aside_and_stops_nothing(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    good = make_result()
    opened(tmp_path).keep([good])
    (tmp_path / f"{uuid4()}-1.json").write_bytes(content)

    assert Spool(tmp_path).open() == [key_of(good)]

    assert [path.read_bytes() for path in (tmp_path / ASIDE).iterdir()] == [content]
    assert "spool.unreadable" in caplog.text


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_a_crash_tore_in_two_is_moved_aside(tmp_path: Path, share: float) -> None:
    result = make_result()
    opened(tmp_path).keep([result])
    path = tmp_path / f"{result.payload.task_id}-1.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)].ljust(len(whole), b"\0"))

    assert Spool(tmp_path).open() == []
    assert [kept.name for kept in (tmp_path / ASIDE).iterdir()] == [path.name]


def test_a_file_under_the_name_of_another_result_is_moved_aside(tmp_path: Path) -> None:
    result = make_result()
    opened(tmp_path).keep([result])
    path = tmp_path / f"{result.payload.task_id}-1.json"
    path.rename(tmp_path / f"{uuid4()}-1.json")

    assert Spool(tmp_path).open() == []


def test_a_result_that_cannot_be_synced_is_not_taken_for_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    spool = opened(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        [outcome] = spool.keep([make_result()])

    assert isinstance(outcome, OSError)
    assert Spool(tmp_path).open() == []


def test_a_file_that_breaks_while_the_agent_runs_is_moved_aside(tmp_path: Path) -> None:
    spool, result = opened(tmp_path), make_result()
    spool.keep([result])
    (tmp_path / f"{result.payload.task_id}-1.json").write_bytes(b"?")

    assert spool.read(key_of(result)) is None
    assert Spool(tmp_path).open() == []


def test_there_is_a_bound_to_what_waits(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_files=2)

    outcomes = spool.keep([make_result(), make_result(), make_result()])

    assert outcomes[:2] == [None, None]
    assert isinstance(outcomes[2], SpoolFull)
    assert len(Spool(tmp_path).open()) == 2


def test_a_disk_that_takes_nothing_is_told_for_each_result(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool")
    (tmp_path / "spool").rmdir()
    (tmp_path / "spool").write_text("in the way")

    assert all(isinstance(outcome, OSError) for outcome in spool.keep([make_result(), make_result()]))
