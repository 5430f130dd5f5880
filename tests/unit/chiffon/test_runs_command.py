"""`chiffon runs`: what each command sends, what it prints, and its exit status."""

import json
from pathlib import Path
from uuid import uuid4

import pytest

from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator
from tests.unit.chiffon.fake_runs import LATER, NOW, make_step, squeezed

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


@pytest.mark.parametrize("command", ["check", "start"])
@pytest.mark.parametrize("place", ["work_type", "undo.work_type"])
def test_a_plan_with_work_of_a_repair_is_refused_with_the_way_to_have_it_done(
    fake: FakeOrchestrator, tmp_path: Path, command: str, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "repair.toml"
    kinds = {"work_type": "echo", "undo.work_type": "echo", place: "compose_repair"}
    plan.write_text("[[steps]]\nname = 'a'\n" + "".join(f"{name} = '{kind}'\n" for name, kind in kinds.items()))

    assert run(["runs", command, str(plan)]) == Exit.USAGE

    said = capfd.readouterr().err
    assert said.startswith(f"chiffon: steps[0].{place}: 'compose_repair' is only dispatched by a repair")
    assert "`chiffon runs repair`, which take the service, an instruction, and a diff or commands" in said
    assert fake.runs.started == []


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


# chiffon runs cancel, approve, reject, retry, abandon


@pytest.mark.parametrize("order", ["cancel", "abandon"])
def test_a_run_is_cancelled_or_given_up(fake: FakeOrchestrator, order: str, capfd: pytest.CaptureFixture[str]) -> None:
    fake.runs.add(RUN)

    assert run(["runs", order, RUN]) == Exit.OK
    assert run(["runs", order, RUN, "-o", "json"]) == Exit.OK

    assert fake.runs.orders == [(f"api/v1/runs/{order}", RUN, {})] * 2
    assert json.loads(capfd.readouterr().out)["run_id"] == RUN


def test_a_cancel_says_what_is_stopped_and_what_is_undone(
    fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ("fetch", "switch", "build", "test")
    plan = {"steps": [{"name": name, "undo": {"work_type": "echo"} if name == "switch" else None} for name in names]}
    steps = [make_step("fetch", "succeeded"), make_step("switch", "succeeded"), make_step("build", "running")]
    fake.runs.add(RUN, *steps, make_step("test"), plan=plan)

    assert run(["runs", "cancel", RUN]) == Exit.OK
    fake.runs.runs[RUN]["cancelled_by"] = "ann"
    assert run(["runs", "cancel", RUN]) == Exit.OK

    goes_on = [
        "Stopped: build.",
        "Undone from now on, the last first: switch.",
        "Left as they are, for they have no undo: fetch.",
        f"To see how it goes on: chiffon runs watch {RUN}",
    ]
    assert capfd.readouterr().err.splitlines() == [
        f"Run {RUN} is cancelled: nothing more of it begins.",
        *goes_on,
        f"Run {RUN} is being cancelled already by ann.",
        *goes_on,
    ]


def test_a_cancel_names_no_step_whose_undo_has_begun_as_one_that_is_left(
    fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = {"steps": [{"name": name, "undo": {"work_type": "echo"}} for name in ("fetch", "switch")]}
    steps = [make_step("fetch", "succeeded"), make_step("switch", "succeeded")]
    fake.runs.add(RUN, *steps, make_step("switch", "running", kind="undo"), plan=plan)

    assert run(["runs", "cancel", RUN]) == Exit.OK

    said = capfd.readouterr().err.splitlines()
    assert said[1:] == [
        "Undone from now on, the last first: fetch.",
        f"To see how it goes on: chiffon runs watch {RUN}",
    ]


def test_a_repair_that_is_cancelled_is_taken_back_by_its_host(
    fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.runs.add(RUN, make_step("prepare", "succeeded"), make_step("deploy", "running"), service="web")

    assert run(["runs", "cancel", RUN]) == Exit.OK

    assert "The host of web takes back what it has changed." in capfd.readouterr().err.splitlines()


def test_a_run_that_was_cancelled_and_has_ended_says_so_with_a_status_of_its_own(
    fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.runs.add(RUN, status="cancelled", cancelled_by="ann")

    assert run(["runs", "cancel", RUN]) == Exit.CONFLICT

    said = f"Run {RUN} has ended: it was cancelled before by ann. Nothing is changed.\n"
    assert capfd.readouterr().err == said


@pytest.mark.parametrize("status", ["rolled-back", "rolled_back"])
def test_a_status_is_taken_with_a_hyphen_and_with_an_underscore(fake: FakeOrchestrator, status: str) -> None:
    assert run(["runs", "list", "--status", status]) == Exit.OK

    assert [query["status"] for query in fake.runs.queries] == ["rolled_back"]


def test_a_status_that_there_is_not_is_answered_with_those_that_there_are_in_one_spelling(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(["runs", "list", "--status", "done"]) == Exit.USAGE

    said = capfd.readouterr().err
    assert '"awaiting-approval", "succeeded", "failed", "rolled-back", "cancelled"' in said
    assert "_" not in said


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
