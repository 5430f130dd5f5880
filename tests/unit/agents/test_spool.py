"""A result that was kept is there after a crash, and nothing that is there can stop the agent."""

import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agents.disk import spool_aside
from agents.disk.spool import Spool, SpoolFull
from agents.disk.spool_aside import ASIDE
from agents.disk.spool_lines import Key, WrittenResult, meaning_of
from agents.executors.base import Outcome
from agents.tasks.results import work_result
from common.messages import GrantedTask, ResultStatus, WorkRequest
from common.protocol import WorkResultEnvelope

AGENT = UUID(int=7)


def make_grant(*, attempt: int = 1) -> GrantedTask:
    return GrantedTask(
        claim_id=uuid4(),
        work=WorkRequest(task_id=uuid4(), work_type="echo"),
        trace_id=uuid4(),
        request_id=uuid4(),
        attempt=attempt,
        lease_seconds=60.0,
    )


def make_result(*, attempt: int = 1) -> WorkResultEnvelope:
    return work_result(AGENT, make_grant(attempt=attempt), Outcome(ResultStatus.COMPLETED, exit_code=0), output="x")


def written(*, attempt: int = 1) -> WrittenResult:
    return WrittenResult.of(make_result(attempt=attempt))


def opened(folder: Path, *, max_results: int = 100, file_bytes: int = 1024 * 1024) -> Spool:
    spool = Spool(folder, max_results=max_results, file_bytes=file_bytes)
    spool.open()
    return spool


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def test_what_was_kept_is_found_after_a_restart_as_it_was_written(tmp_path: Path) -> None:
    first, second = written(), written(attempt=5)
    assert opened(tmp_path / "spool").keep([first, second]) == [None, None]

    again = Spool(tmp_path / "spool")

    assert again.open() == [first.key, second.key]
    assert again.read(first.key) == first
    assert again.read(second.key) == second


def test_results_of_several_lives_are_all_found(tmp_path: Path) -> None:
    results = [written() for _ in range(3)]
    for result in results:
        opened(tmp_path).keep([result])

    again = opened(tmp_path)

    assert [again.read(result.key) for result in results] == results


def test_what_is_stored_is_gone_for_good(tmp_path: Path) -> None:
    spool, result = opened(tmp_path), written()
    spool.keep([result])

    spool.forget([result.key, Key(uuid4(), 1)])

    assert Spool(tmp_path).open() == []
    assert files(tmp_path) == []


def test_of_results_that_share_a_file_those_that_are_stored_are_gone(tmp_path: Path) -> None:
    spool, stored, owed = opened(tmp_path), written(), written()
    spool.keep([stored, owed])

    spool.forget([stored.key])

    again = Spool(tmp_path)
    assert again.open() == [owed.key]
    assert again.read(stored.key) is None


def test_what_is_stored_leaves_nothing_on_the_disk_when_nothing_else_is_owed(tmp_path: Path) -> None:
    spool, results = opened(tmp_path), [written() for _ in range(3)]
    spool.keep(results)

    spool.forget([result.key for result in results])

    assert [path.read_bytes() for path in files(tmp_path)] == [b""]


def test_a_file_that_is_full_is_followed_by_another_and_goes_when_all_in_it_is_stored(tmp_path: Path) -> None:
    spool, first, second = opened(tmp_path, file_bytes=1), written(), written()
    spool.keep([first])
    spool.keep([second])
    assert len(files(tmp_path)) == 2

    spool.forget([first.key])

    assert len(files(tmp_path)) == 1
    assert spool.read(second.key) == second


def test_that_a_result_of_an_older_file_is_stored_is_known_after_a_restart(tmp_path: Path) -> None:
    spool, results = opened(tmp_path, file_bytes=1), [written() for _ in range(3)]
    spool.keep(results[:2])
    spool.keep(results[2:])

    spool.forget([results[0].key])

    assert Spool(tmp_path).open() == [results[1].key, results[2].key]


def test_lines_and_name_are_on_disk_before_results_count_as_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def note(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").resolve().name)

    spool = opened(tmp_path / "spool")
    monkeypatch.setattr(os, "fsync", note)

    spool.keep([written(), written()])
    assert synced == [f"{1:012}.jsonl", "spool"]

    # The name is there already; results that end together share one sync.
    spool.keep([written(), written()])
    assert synced[2:] == [f"{1:012}.jsonl"]


@pytest.mark.parametrize("content", [b"\0" * 100, b'{"protocol_version": "1.0", "type": "work_res'])
def test_a_broken_file_is_moved_aside_and_stops_nothing(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    good = written()
    opened(tmp_path).keep([good])
    (tmp_path / f"{2:012}.jsonl").write_bytes(content)

    assert Spool(tmp_path).open() == [good.key]

    assert [path.read_bytes() for path in (tmp_path / ASIDE).iterdir()] == [content]
    assert "spool.unreadable" in caplog.text


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_lines_that_a_crash_tore_in_two_are_put_aside_and_those_before_them_found(tmp_path: Path, share: float) -> None:
    good, torn = written(), written()
    opened(tmp_path).keep([good, torn])
    [path] = files(tmp_path)
    left = torn.body[: int(len(torn.body) * share)].ljust(len(torn.body), b"\0")
    path.write_bytes(good.body + b"\n" + left)

    for _ in range(2):
        assert Spool(tmp_path).open() == [good.key]
        assert [kept.read_bytes() for kept in (tmp_path / ASIDE).iterdir()] == [left]


def test_a_result_that_cannot_be_synced_is_not_taken_for_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    spool, before, after = opened(tmp_path), written(), written()
    spool.keep([before])
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        [outcome] = spool.keep([written()])

    assert isinstance(outcome, OSError)
    assert spool.keep([after]) == [None]
    assert Spool(tmp_path).open() == [before.key, after.key]


def test_a_disk_that_is_full_in_the_middle_of_a_line_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, before, after = opened(tmp_path), written(), written()
    spool.keep([before])
    write = os.write

    def half(handle: int, data: memoryview) -> int:
        if len(data) < 300:
            raise OSError(28, "No space left on device")
        return write(handle, data[: len(data) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        [outcome] = spool.keep([written()])
    spool.keep([after])

    assert isinstance(outcome, OSError)
    assert Spool(tmp_path).open() == [before.key, after.key]
    assert not (tmp_path / ASIDE).exists()


def test_a_line_that_breaks_while_the_agent_runs_is_put_aside(tmp_path: Path) -> None:
    spool, result = opened(tmp_path), written()
    spool.keep([result])
    [path] = files(tmp_path)
    path.write_bytes(b"?" * len(result.body))

    assert spool.read(result.key) is None
    assert [kept.read_bytes() for kept in (tmp_path / ASIDE).iterdir()] == [b"?" * len(result.body)]
    assert Spool(tmp_path).open() == []


def test_there_is_a_bound_to_what_waits(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_results=2)

    outcomes = spool.keep([written(), written(), written()])

    assert outcomes[:2] == [None, None]
    assert isinstance(outcomes[2], SpoolFull)
    assert len(Spool(tmp_path).open()) == 2


def test_a_disk_that_takes_nothing_is_told_for_each_result(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool")
    (tmp_path / "spool").rmdir()
    (tmp_path / "spool").write_text("in the way")

    assert all(isinstance(outcome, OSError) for outcome in spool.keep([written(), written()]))


def test_what_an_earlier_version_noted_as_stored_is_read() -> None:
    task_id = uuid4()
    line = f'{{"action":"stored","results":[{{"task_id":"{task_id}","fence":3}}]}}'

    assert meaning_of(line.encode()) == [Key(task_id, 3)]


def test_a_line_that_holds_the_result_of_another_attempt_is_not_read_as_this_one(tmp_path: Path) -> None:
    spool, result = opened(tmp_path), make_result()
    other = result.model_copy(update={"payload": result.payload.model_copy(update={"attempt": 2})})
    mine, others = WrittenResult.of(result), WrittenResult.of(other)
    spool.keep([mine])
    [path] = files(tmp_path)
    assert len(others.body) == len(mine.body)
    path.write_bytes(others.body + b"\n")

    assert spool.read(mine.key) is None
    assert [kept.read_bytes() for kept in (tmp_path / ASIDE).iterdir()] == [others.body]


def test_there_is_a_bound_to_what_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_aside, "MOST", 2)
    for number in range(1, 5):
        (tmp_path / f"{number:012}.jsonl").write_bytes(b"?")

    assert Spool(tmp_path).open() == []

    assert len(list((tmp_path / ASIDE).iterdir())) == 2
    assert files(tmp_path) == []
