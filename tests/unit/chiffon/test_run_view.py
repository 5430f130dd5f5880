"""How a run looks: what is shown of its steps, and for how long they have been at it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from chiffon.cli.run_view import RunView, reason_of, rows_of
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

    assert (row.agent, row.note) == ("host-1", "try 3, 40% copying")


def test_an_agent_without_a_name_is_shown_by_the_beginning_of_its_id() -> None:
    agent_id = str(uuid4())

    [row] = rows_of(make_run(make_step("build", "running", agent_id=agent_id)))

    assert row.agent == agent_id[:8]


def test_names_agents_and_reasons_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    on = {"agent_id": str(uuid4())}
    steps = [
        make_step("a", "failed", agent_name="host-1", error_message="exit status 1", **on),
        make_step("build-all", "failed", agent_name="h2", error_message="exit status 2", **on),
        make_step("c", "skipped", error_message="an earlier step failed"),
    ]

    RunView(is_live=False).show(make_run(*steps, status="failed", finished_at=LATER, error_message="no"), AT)

    printed = capsys.readouterr().out.splitlines()
    assert len({line.index(of) for line, of in zip(printed, ("host-1", "h2"), strict=False)}) == 1
    assert len({line.index(of) for line, of in zip(printed, ("exit", "exit", "an earlier", "no"), strict=True)}) == 1


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("build failed: exit status 1", "build failed"),
        ("build failed: exit status 1.", "build failed"),
        ("build failed: exit status 1; could not be undone: fetch", "build failed; could not be undone: fetch"),
        ("abandoned by ann", "abandoned by ann"),
    ],
)
def test_what_is_said_of_a_step_is_not_said_of_the_run_again(message: str, shown: str) -> None:
    failed = make_step("build", "failed", error_message="exit status 1")

    assert reason_of(make_run(make_step("fetch", "succeeded"), failed, status="failed", error_message=message)) == shown


def test_why_a_step_waits_is_a_line_and_another_when_the_cause_is_another(capsys: pytest.CaptureFixture[str]) -> None:
    view = RunView(is_live=False)
    run = make_run(make_step("build", number=1))
    view.show(run, AT)
    capsys.readouterr()

    for reason, cause in (("3 go before it", 1), ("2 go before it", 1), ("No agent is online", 2)):
        view.waits(run.steps[0], reason, (cause,), AT)

    assert lines(capsys) == [
        ["build", "pending", "3", "go", "before", "it"],
        ["build", "pending", "No", "agent", "is", "online"],
    ]


def test_at_a_terminal_a_step_says_why_it_waits_until_it_begins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    view = RunView(is_live=True)
    waiting = make_run(make_step("build", number=1))
    view.show(waiting, AT)

    view.waits(waiting.steps[0], "No agent is online", ("no_agent",), AT)
    view.draw(AT)
    assert "No agent is online" in capsys.readouterr().out
    view.show(make_run(make_step("build", "running")), AT)

    assert "No agent is online" not in capsys.readouterr().out


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


def test_the_end_of_a_round_is_shown_also_when_the_next_one_has_begun(capsys: pytest.CaptureFixture[str]) -> None:
    view = RunView(is_live=False)
    first, second = make_step("ask", "succeeded", superseded=True), make_step("ask", "running", number=2)

    view.show(make_run(make_step("ask", "running")), AT)
    for _ in range(2):
        view.show(make_run(second, earlier=[make_step("ask", "failed", number=0), first]), AT)

    assert lines(capsys) == [
        ["nightly", "running"],
        ["ask", "running"],
        ["ask", "succeeded", "2.50", "s"],
        ["ask", "running", "try", "2"],
    ]


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
