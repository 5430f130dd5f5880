"""`chiffon runs`: what each command sends, what it prints, and its exit status."""

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from chiffon.cli import console
from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator
from tests.unit.chiffon.fake_runs import LATER, NOW, make_step

RUN = "3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11"
TASK, APPROVAL = "0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60", "5f3c1d2e-4f60-4c5e-9a0b-0b8f5a0e6d0c"
PLAN = """\
name = "greet"
inputs = { whom = "world", times = 1 }

[[steps]]
name = "hello"
work_type = "echo"
parameters = { message = "hello ${inputs.whom}" }

[[steps]]
name = "again"
work_type = "echo"
parameters = { message = "${steps.hello.output}" }
"""
ENDED = [
    ("succeeded", Exit.OK),
    ("failed", Exit.WORK_FAILED),
    ("cancelled", Exit.WORK_CANCELLED),
    ("rolled_back", Exit.WORK_ROLLED_BACK),
]


@pytest.fixture(autouse=True)
def _server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIFFON_SERVER", url)


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return str(path)


def squeezed(printed: str) -> list[str]:
    """Return the lines, with one blank between cells and without the time of day."""
    return [re.sub(r"^\d\d:\d\d:\d\d\.\d+ ", "", re.sub(" +", " ", line).strip()) for line in printed.splitlines()]


# chiffon runs start, check


def test_a_plan_is_started_and_the_id_of_the_run_stands_alone_on_standard_output(
    fake: FakeOrchestrator, plan: str, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ["--input", "whom=you", "--name", "morning", "--key", "greetings"]

    assert run(["runs", "start", plan, *given]) == Exit.OK

    [sent] = fake.runs.started
    assert capfd.readouterr().out.strip() == sent["run_id"]
    assert (sent["inputs"], sent["name"], sent["key"]) == ({"whom": "you"}, "morning", "greetings")
    assert [step["name"] for step in sent["plan"]["steps"]] == ["hello", "again"]
    assert "approval" not in sent["plan"]["steps"][0]


def test_inputs_are_json_where_they_are_and_win_over_the_file(
    fake: FakeOrchestrator, plan: str, tmp_path: Path
) -> None:
    inputs = tmp_path / "inputs.json"
    inputs.write_text('{"whom": "them"}')

    assert run(["runs", "start", plan, "--inputs-file", str(inputs)]) == Exit.OK
    assert run(["runs", "start", plan, "--inputs-file", str(inputs), "--input", "times=3"]) == Exit.OK
    assert run(["runs", "start", plan, "--input", 'times=[1, "2"]']) == Exit.OK

    assert [sent.get("inputs") for sent in fake.runs.started] == [
        {"whom": "them"},
        {"whom": "them", "times": 3},
        {"times": [1, "2"]},
    ]


def test_an_input_whose_default_is_a_text_stays_a_text(fake: FakeOrchestrator, plan: str) -> None:
    assert run(["runs", "start", plan, "--input", "whom=1.1"]) == Exit.OK
    assert run(["runs", "start", plan, "--input", "whom=a=b"]) == Exit.OK

    assert [sent["inputs"] for sent in fake.runs.started] == [{"whom": "1.1"}, {"whom": "a=b"}]


def test_a_start_whose_answer_was_lost_is_sent_again_with_the_same_id(fake: FakeOrchestrator, plan: str) -> None:
    fake.runs.lost_answers = 1

    assert run(["runs", "start", plan]) == Exit.OK

    first, second = fake.runs.started
    assert first == second


def test_a_plan_in_json_is_started(fake: FakeOrchestrator, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"steps": [{"name": "hello", "work_type": "echo"}]}))

    assert run(["runs", "start", str(path)]) == Exit.OK

    assert fake.runs.started[0]["plan"] == {"steps": [{"name": "hello", "work_type": "echo"}]}


@pytest.mark.parametrize("command", ["start", "check"])
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("steps = 1", "steps"),
        ('[[steps]]\nname = "A"\nwork_type = "echo"', "steps[0].name"),
        ('[[steps]]\nname = "a"\nwork_type = "echo"\nneeds = ["b"]', "steps[0].needs"),
        (PLAN.replace("steps.hello.output", "steps.bye.output"), "steps[1].parameters.message"),
        ("steps = [", "plan"),
    ],
)
def test_a_plan_that_cannot_be_run_is_wrong_usage_and_its_place_is_named(
    fake: FakeOrchestrator, tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str, text: str, place: str
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)

    assert run(["runs", command, str(path)]) == Exit.USAGE

    assert capfd.readouterr().err.startswith(f"chiffon: {place}")
    assert fake.runs.started == []


@pytest.mark.parametrize("given", ["whom", "=you", "nobody=1"])
def test_an_input_that_the_plan_does_not_have_is_wrong_usage(fake: FakeOrchestrator, plan: str, given: str) -> None:
    assert run(["runs", "start", plan, "--input", given]) == Exit.USAGE

    assert fake.runs.started == []


def test_a_plan_is_checked_without_a_server(
    fake: FakeOrchestrator, plan: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["runs", "check", plan]) == Exit.OK
    assert capfd.readouterr().out == "greet: 2 steps\n"

    assert run(["runs", "check", plan, "-o", "json"]) == Exit.OK
    assert json.loads(capfd.readouterr().out)["steps"][0]["name"] == "hello"
    assert fake.runs.started == []


@pytest.mark.parametrize(("status", "exit_status"), ENDED)
def test_the_outcome_of_a_run_that_was_waited_for_is_the_exit_status(
    fake: FakeOrchestrator, plan: str, status: str, exit_status: Exit, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.runs.add(RUN, make_step("hello", "succeeded"), status="pending")
    fake.runs.looks = [{}, {}, {"status": status, "finished_at": LATER}]
    fake.then = lambda: fake.runs.add_event("run.status", RUN, status=status)

    assert run(["runs", "start", plan, "--run-id", RUN, "--wait", "-o", "json"]) == exit_status

    assert json.loads(capfd.readouterr().out)["status"] == status


# chiffon runs list, show


def test_runs_are_listed_by_what_is_asked_for(fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]) -> None:
    fake.runs.add(RUN, status="rolled_back", service="web", finished_at=LATER, error_message="verify:\x1b no answer")

    asked = ["--status", "rolled-back", "--service", "web", "--name", "nightly", "--limit", "7", "--cursor", "abc"]
    assert run(["runs", "list", *asked]) == Exit.OK

    printed = capfd.readouterr()
    head, line = squeezed(printed.out)
    assert head == "RUN NAME STATUS SERVICE BY CREATED TOOK WHY"
    assert line.startswith(f"{RUN} nightly rolled_back web ann ")
    assert line.endswith(" 2.50 s verify:\\u001b no answer")
    assert "--cursor more" in printed.err
    assert fake.runs.queries == [
        {"status": "rolled_back", "service": "web", "name": "nightly", "limit": "7", "cursor": "abc"}
    ]


def test_a_run_is_shown_with_what_its_host_does_inside_a_step(
    fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    inner = [
        {"position": 1, "name": "patch", "status": "succeeded", "started_at": NOW, "finished_at": LATER},
        {"position": 2, "name": "build", "status": "failed", "started_at": NOW, "message": "no space\nleft"},
    ]
    early = make_step("repair", "failed", number=1, superseded=True, error_message="too early")
    step = make_step("repair", "failed", number=2, inner=inner, agent_name="host-1", error_message="build: no space")
    fake.runs.add(RUN, step, make_step("tell"), status="failed", earlier=[early])

    assert run(["runs", "show", RUN]) == Exit.OK
    lines = squeezed(capfd.readouterr().out)
    assert run(["runs", "show", RUN, "--earlier"]) == Exit.OK
    with_earlier = squeezed(capfd.readouterr().out)

    assert lines[-5:] == [
        "STEP STATUS TRY TOOK AGENT TASK WHAT",
        f"repair failed 2 2.50 s host-1 {step['task_id']} build: no space",
        "patch succeeded - 2.50 s - - -",
        "build failed - - - - no space left",
        "tell pending - - - - -",
    ]
    assert f"repair failed 1 2.50 s - {early['task_id']} too early" in with_earlier
    assert f"run {RUN}" in lines


def test_the_newest_diff_of_a_run_is_shown_as_approvers_see_texts(
    fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.runs.add(RUN, make_step("prepare", "succeeded"))
    fake.runs.add_artifact(RUN, "patch.diff", b"-old\n", type="patch_diff")
    newest = fake.runs.add_artifact(RUN, "patch.diff", "+\u0430\x1b[2J\n+b\n".encode(), type="patch_diff")

    assert run(["runs", "show", RUN, "--diff"]) == Exit.OK

    printed = capfd.readouterr().out
    assert f"SHA-256 {newest['sha256']}:\n\n+\\u0430\\u001b[2J\n+b\n" in printed
    assert "-old" not in printed


def test_a_run_without_a_diff_says_so(fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]) -> None:
    fake.runs.add(RUN)

    assert run(["runs", "show", RUN, "--diff"]) == Exit.OK
    assert "no diff" in capfd.readouterr().err

    assert run(["runs", "show", RUN, "--diff", "-o", "json"]) == Exit.USAGE


def test_a_run_that_waits_for_people_says_for_which_approval(
    fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.runs.add(RUN, make_step("deploy", "awaiting_approval", approval_id=APPROVAL), status="awaiting_approval")

    assert run(["runs", "show", RUN]) == Exit.OK

    assert f"chiffon approvals show {APPROVAL}" in capfd.readouterr().out


def test_a_run_that_does_not_exist_is_not_found(capfd: pytest.CaptureFixture[str]) -> None:
    for command in (["show", RUN], ["watch", RUN], ["cancel", RUN], ["artifacts", RUN], ["retry", RUN]):
        assert run(["runs", *command]) == Exit.NOT_FOUND

    assert capfd.readouterr().out == ""


# chiffon runs watch


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


# chiffon runs cancel, approve, reject, retry, abandon


@pytest.mark.parametrize("order", ["cancel", "abandon"])
def test_a_run_is_cancelled_or_given_up(fake: FakeOrchestrator, order: str, capfd: pytest.CaptureFixture[str]) -> None:
    fake.runs.add(RUN)

    assert run(["runs", order, RUN]) == Exit.OK
    assert run(["runs", order, RUN, "-o", "json"]) == Exit.OK

    assert fake.runs.orders == [(f"api/v1/runs/{order}", RUN, {})] * 2
    assert json.loads(capfd.readouterr().out)["run_id"] == RUN


def test_a_run_that_has_ended_is_not_cancelled(fake: FakeOrchestrator) -> None:
    fake.runs.add(RUN, status="succeeded", finished_at=LATER)

    assert run(["runs", "cancel", RUN]) == Exit.CONFLICT


def test_the_yes_is_for_the_one_approval_that_the_run_waits_for(fake: FakeOrchestrator) -> None:
    fake.runs.add(
        RUN, make_step("prepare", "succeeded"), make_step("deploy", "awaiting_approval", approval_id=APPROVAL)
    )

    assert run(["runs", "approve", RUN, "--comment", "looks right"]) == Exit.OK
    assert run(["runs", "reject", RUN, "--reason", "wrong service"]) == Exit.OK

    assert fake.runs.orders == [
        ("api/v1/runs/approve", RUN, {"comment": "looks right"}),
        ("api/v1/runs/reject", RUN, {"reason": "wrong service"}),
    ]


def test_of_several_approvals_one_is_named(fake: FakeOrchestrator) -> None:
    other = str(uuid4())
    steps = [make_step(name, "awaiting_approval", approval_id=one) for name, one in (("a", APPROVAL), ("b", other))]
    fake.runs.add(RUN, *steps)

    assert run(["runs", "approve", RUN, "--approval", other]) == Exit.OK
    assert run(["runs", "reject", RUN, "--approval", APPROVAL, "--reason", "no"]) == Exit.OK

    assert fake.runs.orders == [
        ("api/v1/runs/approve", RUN, {"comment": "", "approval_id": other}),
        ("api/v1/runs/reject", RUN, {"reason": "no", "approval_id": APPROVAL}),
    ]


@pytest.mark.parametrize("answer", [["approve"], ["reject", "--reason", "no"]])
def test_a_run_that_waits_for_nobody_is_not_answered(
    fake: FakeOrchestrator, answer: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    fake.runs.add(RUN, make_step("deploy", "running"))

    assert run(["runs", answer[0], RUN, *answer[1:]]) == Exit.CONFLICT

    assert "The run waits for no approval." in capfd.readouterr().err


def test_a_run_is_tried_again_from_a_step_of_its_plan(
    fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.runs.add(RUN, status="failed")

    assert run(["runs", "retry", RUN]) == Exit.OK
    assert run(["runs", "retry", RUN, "--from", "again", "--reason", "the disk has room"]) == Exit.OK

    assert fake.runs.orders == [
        ("api/v1/runs/retry", RUN, {}),
        ("api/v1/runs/retry", RUN, {"from_step": "again", "reason": "the disk has room"}),
    ]
    assert capfd.readouterr().out.split() == [RUN, RUN]


def test_a_repair_is_tried_again_from_what_its_host_does(fake: FakeOrchestrator) -> None:
    fake.runs.add(RUN, status="rolled_back", service="web")

    assert run(["runs", "retry", RUN]) == Exit.OK
    assert run(["runs", "retry", RUN, "--from", "build"]) == Exit.OK
    assert run(["runs", "retry", RUN, "--from", "analyze"]) == Exit.USAGE

    assert fake.runs.orders == [
        ("orchestrator/runs/retry", RUN, {}),
        ("orchestrator/runs/retry", RUN, {"resume_from_step": "build"}),
    ]


# chiffon runs repair


def test_a_service_is_repaired_by_a_diff(
    fake: FakeOrchestrator, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    diff = tmp_path / "fix.diff"
    diff.write_text("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n")

    assert run(["runs", "repair", "web", "-i", "Fix it.", "--patch", str(diff), "--priority", "high"]) == Exit.OK

    [sent] = fake.runs.started
    assert sent == {
        "instruction": "Fix it.",
        "target_service": "web",
        "priority": "high",
        "patch": {"diff": diff.read_text()},
    }
    assert capfd.readouterr().out.strip() in fake.runs.runs


def test_a_service_is_repaired_by_a_command_or_by_those_that_it_has(fake: FakeOrchestrator) -> None:
    assert run(["runs", "repair", "web", "-i", "Fix it.", "--", "sed", "-i", "s/a/b/", "x"]) == Exit.OK
    assert run(["runs", "repair", "web", "-i", "Fix it."]) == Exit.OK

    with_command, without = fake.runs.started
    assert with_command["patch"] == {"commands": [["sed", "-i", "s/a/b/", "x"]]}
    assert "patch" not in without


def test_a_repair_that_was_waited_for_is_shown_at_its_end(
    fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["runs", "repair", "web", "-i", "Fix it.", "--wait"]) == Exit.OK

    assert "status succeeded" in squeezed(capfd.readouterr().out)


def test_what_cannot_be_a_repair_is_wrong_usage(fake: FakeOrchestrator, tmp_path: Path) -> None:
    diff = tmp_path / "fix.diff"
    diff.write_text("-a\n+b\n")

    assert run(["runs", "repair", "web"]) == Exit.USAGE
    assert run(["runs", "repair", "web", "-i", "Fix it.", "--patch", str(diff), "--", "true"]) == Exit.USAGE
    assert run(["runs", "repair", "web", "-i", "Fix it.", "--patch", str(tmp_path / "none")]) == Exit.USAGE
    assert fake.runs.started == []

    assert run(["runs", "repair", "nothing", "-i", "Fix it."]) == Exit.USAGE


# chiffon runs artifacts, download, upload


def test_what_a_run_or_a_task_keeps_is_listed(fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]) -> None:
    fake.runs.add(RUN)
    kept = fake.runs.add_artifact(RUN, "patch.diff", b"+b\n", type="patch_diff")
    fake.runs.add_artifact(RUN, "build.log", b"", stored_at=None, missing="the disk is full")
    of_task = fake.runs.add_artifact(TASK, "dist/x.whl", b"wheel")

    assert run(["runs", "artifacts", RUN]) == Exit.OK
    assert run(["runs", "artifacts", TASK]) == Exit.OK
    assert run(["runs", "artifacts", APPROVAL]) == Exit.NOT_FOUND

    head, diff, log, _, wheel = squeezed(capfd.readouterr().out)
    assert head == "ARTIFACT PATH TYPE BYTES SHA-256 TASK WHY NOT"
    assert diff == f"{kept['artifact_id']} patch.diff patch_diff 3 {kept['sha256']} {kept['task_id']} -"
    assert log.endswith("the disk is full")
    assert wheel.startswith(f"{of_task['artifact_id']} dist/x.whl - 5 ")


def test_files_are_downloaded_below_their_paths(
    fake: FakeOrchestrator, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.runs.add(RUN)
    fake.runs.add_artifact(RUN, "patch.diff", b"+b\n")
    fake.runs.add_artifact(RUN, "dist/x.whl", b"wheel" * 100_000)
    fake.runs.add_artifact(RUN, "build.log", b"", stored_at=None, missing="the disk is full")

    assert run(["runs", "download", RUN, "--to", str(tmp_path)]) == Exit.OK

    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in files.items()} == {
        "patch.diff": b"+b\n",
        "dist/x.whl": b"wheel" * 100_000,
    }
    assert capfd.readouterr().out.splitlines() == [str(tmp_path / "patch.diff"), str(tmp_path / "dist/x.whl")]


def test_one_file_is_downloaded_in_place_of_what_was_there(fake: FakeOrchestrator, tmp_path: Path) -> None:
    fake.runs.add(RUN)
    fake.runs.add_artifact(RUN, "patch.diff", b"+b\n")
    fake.runs.add_artifact(RUN, "build.log", b"built\n")
    (tmp_path / "patch.diff").write_text("an older and longer one\n")

    assert run(["runs", "download", RUN, "patch.diff", "--to", str(tmp_path)]) == Exit.OK
    assert run(["runs", "download", RUN, "verify.log", "--to", str(tmp_path)]) == Exit.NOT_FOUND

    assert [path.name for path in tmp_path.iterdir()] == ["patch.diff"]
    assert (tmp_path / "patch.diff").read_bytes() == b"+b\n"


@pytest.mark.parametrize(
    ("claimed", "exit_status"),
    [
        ({"sha256": "0" * 64}, Exit.ERROR),
        ({"size": 2}, Exit.ERROR),
        ({"size": 4}, Exit.ERROR),
        ({"stored_at": None}, Exit.NOT_FOUND),
        ({"path": "../x"}, Exit.ERROR),
    ],
)
def test_what_is_not_whole_or_leads_out_leaves_nothing_behind(
    fake: FakeOrchestrator, tmp_path: Path, claimed: dict[str, Any], exit_status: Exit
) -> None:
    fake.runs.add(RUN)
    artifact = fake.runs.add_artifact(RUN, "x", b"abc", **claimed)
    folder = tmp_path / "to"
    folder.mkdir()

    assert run(["runs", "download", RUN, artifact["path"], "--to", str(folder)]) == exit_status

    assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


def test_a_download_does_not_follow_a_link_out_of_its_folder(fake: FakeOrchestrator, tmp_path: Path) -> None:
    fake.runs.add(RUN)
    fake.runs.add_artifact(RUN, "dist/x", b"abc")
    (tmp_path / "outside").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "dist").symlink_to(tmp_path / "outside")

    assert run(["runs", "download", RUN, "--to", str(tmp_path / "to")]) == Exit.ERROR

    assert list((tmp_path / "outside").iterdir()) == []


def test_a_file_is_handed_in_and_its_digest_stands_alone_on_standard_output(
    fake: FakeOrchestrator, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = b"site" * 200_000
    (tmp_path / "site.tar").write_bytes(content)

    assert run(["runs", "upload", str(tmp_path / "site.tar")]) == Exit.OK
    assert run(["runs", "upload", str(tmp_path / "none")]) == Exit.ERROR

    assert fake.runs.uploaded == [content]
    assert re.fullmatch(r"[0-9a-f]{64}\n", capfd.readouterr().out)
