"""`chiffon runs watch`: what it shows of a run as it goes, at a terminal and elsewhere."""

import io
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from chiffon.cli import console
from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator
from tests.unit.chiffon.fake_runs import LATER, NOW, make_step, squeezed

RUN = "3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11"
TASK, APPROVAL = "0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60", "5f3c1d2e-4f60-4c5e-9a0b-0b8f5a0e6d0c"


@pytest.fixture(autouse=True)
def _server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIFFON_SERVER", url)


def repaired(fake: FakeOrchestrator) -> None:
    """Have a run of one step begin, report what its host does, write something, and end well."""

    def happen() -> None:
        fake.then = lambda: None
        of_task: dict[str, Any] = {"task_id": TASK}
        fake.runs.add_event("run.step", RUN, TASK, step="repair", kind="step", number=1, status="pending", **of_task)
        fake.add_event("task.claimed", TASK)
        fake.add_event("task.step", TASK, position=1, name="patch", status="in_progress", message="")
        fake.add_event("task.output", TASK, number=0, stream="stdout", offset=0, text="Step 1/2\nSte")
        fake.add_event("task.step", TASK, position=1, name="patch", status="succeeded", message="1 file")
        fake.add_event("task.step", TASK, position=1, name="patch", status="in_progress", message="late")
        fake.add_event("task.output", TASK, number=1, stream="stdout", offset=12, text="p 2/2\n")
        fake.add_event("task.output", TASK, number=2, stream="stderr", offset=0, text="no end")
        fake.add_event("task.completed", TASK, output_bytes={"stdout": 18, "stderr": 6})
        fake.runs.add_event("run.status", RUN, status="succeeded")

    fake.runs.add(RUN, make_step("repair"), status="pending")
    inner = [{"position": 1, "name": "patch", "status": "succeeded", "started_at": NOW, "finished_at": LATER}]
    step = make_step("repair", "succeeded", task_id=TASK, inner=inner)
    fake.runs.looks = [{}, {}, {"steps": [step]}, {"status": "succeeded", "finished_at": LATER}]
    fake.then = happen


def test_each_change_of_a_run_is_a_line_where_no_terminal_reads(
    fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    repaired(fake)

    assert run(["runs", "watch", RUN]) == Exit.OK

    printed = [line.replace("nightly", "run") for line in squeezed(capfd.readouterr().out)]
    assert printed == [
        "repair running",
        "patch in_progress",
        "repair | Step 1/2",
        "patch succeeded 0.00 s 1 file",
        "repair | Step 2/2",
        "repair succeeded 2.50 s",
        "repair ! no end",
        "run succeeded 2.50 s",
    ]


def test_quietly_only_the_steps_are_shown(fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]) -> None:
    repaired(fake)

    assert run(["runs", "watch", RUN, "--quiet"]) == Exit.OK

    printed = capfd.readouterr().out
    assert "Step 1/2" not in printed
    assert "patch" in printed


def test_a_run_is_followed_as_json_event_by_event(fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]) -> None:
    repaired(fake)

    assert run(["runs", "watch", RUN, "-o", "json"]) == Exit.OK

    kinds = [json.loads(line)["kind"] for line in capfd.readouterr().out.splitlines()]
    assert kinds == [event["kind"] for event in fake.events]


def test_only_the_events_of_its_trace_are_asked_for(fake: FakeOrchestrator) -> None:
    repaired(fake)

    run(["runs", "watch", RUN])

    assert fake.feeds == [{"trace_id": fake.runs.runs[RUN]["trace_id"]}]


def test_what_a_running_step_wrote_before_is_shown_and_what_had_ended_is_not(
    fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.output = [("stdout", "from before\n")]
    fake.runs.add(RUN, make_step("first", "succeeded"), make_step("second", "running", task_id=TASK))
    fake.runs.looks = [{}, {}, {"status": "cancelled"}]
    fake.then = lambda: fake.runs.add_event("run.status", RUN, status="cancelled")

    assert run(["runs", "watch", RUN]) == Exit.WORK_CANCELLED

    lines = squeezed(capfd.readouterr().out)
    assert "second | from before" in lines
    assert "first | from before" not in lines


def test_a_lost_connection_shows_nothing_twice(fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]) -> None:
    repaired(fake)
    fake.cuts = [(4, 1001)]
    fake.overlap = 3
    inner = [{"position": 1, "name": "patch", "status": "in_progress", "started_at": NOW}]
    fake.runs.looks.insert(2, {"steps": [make_step("repair", "running", task_id=TASK, inner=inner)]})

    assert run(["runs", "watch", RUN]) == Exit.OK

    lines = squeezed(capfd.readouterr().out)
    assert len(fake.feeds) == 2
    assert len(lines) == len(set(lines)) == 8


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_at_a_terminal_the_steps_stay_at_the_bottom_below_what_they_write(
    fake: FakeOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    repaired(fake)
    terminal = Terminal()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(console, "sys", SimpleNamespace(stdout=terminal, stderr=terminal))

    assert run(["runs", "watch", RUN]) == Exit.OK

    screen = shown_on(terminal.getvalue())
    assert [line for line in squeezed("\n".join(screen)) if line] == [
        "repair | Step 1/2",
        "repair | Step 2/2",
        "repair ! no end",
        "nightly succeeded 2.50 s",
        "repair succeeded 2.50 s",
        "patch succeeded 2.50 s",
    ]


def shown_on(written: str) -> list[str]:
    """Return the lines of a terminal after what was written to it: of its sequences, only lines are taken away."""
    lines = [""]
    for part in re.split(r"(\x1b\[\d+A\x1b\[J|\n)", written):
        if part == "\n":
            lines.append("")
        elif part.startswith("\x1b["):
            count = int(part[2 : part.index("A")])
            lines = [*lines[: len(lines) - 1 - count], ""]
        else:
            lines[-1] += part
    return lines
