"""How a run looks: what is shown of its steps, and for how long they have been at it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from chiffon.cli.run_view import RunView, rows_of
from chiffon.models import Run
from tests.unit.chiffon.fake_runs import LATER, NOTHING, NOW, TIMES, make_step

AT = datetime(2026, 11, 30, 10, tzinfo=UTC)


def make_run(*steps: dict[str, Any], status: str = "running", **how: Any) -> Run:
    ids = {"run_id": uuid4(), "request_id": uuid4(), "trace_id": uuid4(), "name": "nightly", "requested_by": "ann"}
    known = {**ids, "status": status, **TIMES, **NOTHING, "plan": {}, "inputs": {}, "steps": list(steps)}
    return Run.model_validate(known | how)


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split()[1:] for line in capsys.readouterr().out.splitlines()]


def test_what_undoes_a_step_is_told_from_the_step() -> None:
    run = make_run(make_step("deploy", "succeeded"), make_step("deploy", "running", kind="undo"))

    assert [row.name for row in rows_of(run)] == ["deploy", "undo deploy"]


def test_a_step_that_was_tried_again_says_so_and_where_it_runs() -> None:
    step = make_step("build", "running", number=3, agent_id=str(uuid4()), agent_name="host-1", progress="40% copying")

    [row] = rows_of(make_run(step))

    assert row.note == "try 3, on host-1, 40% copying"


def test_a_step_takes_as_long_as_from_its_beginning_to_its_end() -> None:
    [row] = rows_of(make_run(make_step("build", "succeeded", started_at=NOW, finished_at=LATER)))
    [turned] = rows_of(make_run(make_step("build", "succeeded", started_at=LATER, finished_at=NOW)))

    assert row.took == timedelta(seconds=2.5)
    assert turned.took == timedelta(0)


def test_a_change_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = RunView(is_live=False)
    running = make_run(make_step("build", "running"), make_step("test"))

    view.show(running, AT)
    view.show(running.model_copy(), AT)

    assert lines(capsys) == [["nightly", "running"], ["build", "running"]]


def test_a_run_that_ends_says_so_after_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    view = RunView(is_live=False)

    ended = make_step("build", "failed", error_message="exit status 1")
    view.show(make_run(ended, status="failed", finished_at=LATER, error_message="build failed"), AT)

    assert lines(capsys) == [
        ["build", "failed", "2.50", "s", "exit", "status", "1"],
        ["nightly", "failed", "2.50", "s", "build", "failed"],
    ]


def test_a_new_try_is_a_new_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = RunView(is_live=False)

    view.show(make_run(make_step("build", "failed", number=1)), AT)
    view.show(make_run(make_step("build", "running", number=2)), AT)
    view.show(make_run(make_step("build", "failed", number=2)), AT)

    assert [line[1] for line in lines(capsys)] == ["running", "failed", "running", "failed"]


def test_the_clock_of_a_host_that_is_ahead_shows_no_time_before_the_beginning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    ahead = [{"position": 0, "name": "analyze", "status": "in_progress", "started_at": (AT + timedelta(hours=1))}]
    view = RunView(is_live=True)

    view.show(make_run(make_step("repair", "running", inner=ahead)), AT)
    view.draw(AT + timedelta(seconds=3))

    assert "analyze" in capsys.readouterr().out.splitlines()[-1]


def test_of_more_steps_than_lines_those_at_work_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "12")
    done = [make_step(f"s{number}", "succeeded") for number in range(40)]
    rest = [make_step(f"s{number}") for number in range(41, 80)]

    RunView(is_live=True).show(make_run(*done, make_step("s40", "running"), *rest), AT)

    shown = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert len(shown) <= 12
    assert shown[1] == ["…", "40"]
    assert ["s40", "running"] in shown
    assert shown[-1] == ["…", "32"]


def test_what_a_step_writes_keeps_to_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = RunView(is_live=False)
    view.show(make_run(make_step("build", "running")), AT)
    capsys.readouterr()

    view.wrote("build", "|", "\x1b[31mred\x1b[0m\ta\u202eb\r", AT)

    assert capsys.readouterr().out.partition("| ")[2] == "red     a\\u202eb\n"
