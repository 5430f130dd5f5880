"""What a task ran, for whom and where, as people see it on the command line; and what they call things."""

import json
import shlex
import socket
from typing import Any

import httpx2
import pytest

from tests.command_lines import Done, run_here
from tests.fuzz.running import Running

pytestmark = pytest.mark.xdist_group("edges/what_ran")

TOKEN = "ghp_" + "a1B2c3D4e5" * 4


def run(fleet: Running, line: str, *, stdin: str = "") -> Done:
    return run_here(shlex.split(line), stdin=stdin, CHIFFON_SERVER=fleet.http)


def answer(fleet: Running, line: str, *, stdin: str = "") -> Any:
    done = run(fleet, line, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def dispatched(fleet: Running, words: str) -> str:
    task: str = answer(fleet, f"dispatch --wait -o json {words}")["task_id"]
    return task


@pytest.mark.parametrize(
    ("option", "stdin"),
    [("--script -", "echo from-stdin"), ("--params-file -", '{"argv": ["echo", "from-stdin"]}')],
)
def test_a_single_hyphen_reads_standard_input(fleet: Running, option: str, stdin: str) -> None:
    assert answer(fleet, f"dispatch shell_script --wait -o json {option}", stdin=stdin)["output"] == "from-stdin\n"


def test_a_single_hyphen_reads_what_an_approval_is_asked_for(fleet: Running) -> None:
    done = run(fleet, "approvals ask shell_script --params-file - --note now", stdin='{"argv": ["reboot"]}')

    # It was read: the policy answers, which lets this run without an approval.
    assert (done.returncode, b"[3003]" in done.stderr) == (5, True), done.stderr.decode()


def test_a_task_shows_its_program_its_name_its_labels_and_its_agent(fleet: Running) -> None:
    task = dispatched(fleet, "shell_script --name backup --label env=prod --label team=web --agent web-1 -- echo hi")

    detail = run(fleet, f"status {task}").stdout.decode()
    listed = run(fleet, "tasks --name backup").stdout.decode()
    found = answer(fleet, f"status {task} -o json")

    assert '"argv": ["echo", "hi"]' in detail
    assert "env=prod, team=web" in detail
    assert "web-1, " in detail
    assert "backup" in listed
    assert "web-1" in listed
    assert (found["parameters"], found["agent_name"]) == ({"argv": ["echo", "hi"]}, "web-1")
    assert (found["name"], found["labels"]) == ("backup", {"env": "prod", "team": "web"})
    assert found["requested_by"] == "anybody"


def test_a_task_without_a_name_is_listed_by_its_program(fleet: Running) -> None:
    dispatched(fleet, "shell_script -- printf '%s' 'a b'")

    assert "printf %s 'a b'" in run(fleet, "tasks").stdout.decode()


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ("--label tier=gold", True),
        ("--label tier=gold --label env=prod", True),
        ("--label tier=silver", False),
        ("--label tier=gold --label env=test", False),
        ("--name labelled", True),
        ("--name other", False),
        ("--requested-by anybody", True),
        ("--requested-by bob", False),
        ("--agent web-1", True),
    ],
)
def test_tasks_are_found_by_name_label_requester_and_agent(fleet: Running, filters: str, found: bool) -> None:
    task = dispatched(fleet, "echo --name labelled --label tier=gold --label env=prod --param message=hi")

    listed = {item["task_id"] for item in answer(fleet, f"tasks {filters} --limit 200 -o json")["items"]}

    assert (task in listed) is found


def test_events_carry_name_and_labels(fleet: Running) -> None:
    task = dispatched(fleet, "echo --name told --label env=prod --param message=hi")

    events = httpx2.get(f"{fleet.http}/api/v1/tasks/{task}/events").json()["items"]

    [first] = [event for event in events if event["kind"] == "task.dispatched"]
    assert (first["data"]["name"], first["data"]["labels"]) == ("told", {"env": "prod"})


def test_what_looks_like_a_secret_is_hidden_in_the_parameters_and_runs_all_the_same(fleet: Running) -> None:
    task = dispatched(fleet, f"shell_script -- sh -c 'test $0 = {TOKEN}' {TOKEN}")

    shown = run(fleet, f"status {task} -o json").stdout.decode()
    listed = run(fleet, "tasks -o json").stdout.decode()

    assert json.loads(shown)["status"] == "completed"
    assert TOKEN not in shown
    assert TOKEN not in listed


def test_a_list_shortens_long_parameters_and_a_task_by_itself_does_not(fleet: Running) -> None:
    task = dispatched(fleet, f"echo --param message={'x' * 5000}")

    [item] = [one for one in answer(fleet, "tasks --limit 200 -o json")["items"] if one["task_id"] == task]

    assert len(item["parameters"]["message"]) < 300
    assert "(5000 characters)" in item["parameters"]["message"]
    assert len(answer(fleet, f"status {task} -o json")["parameters"]["message"]) == 5000


def test_an_agent_is_listed_under_its_name_and_ordered_by_it(fleet: Running) -> None:
    agents = run(fleet, "agents").stdout.decode().splitlines()

    assert agents[1].startswith("web-1 ")
    assert b"Paused: web-1 on web-1" in run(fleet, "agents pause web-1 --minutes 1").stderr
    assert b"Resumed: web-1 on web-1" in run(fleet, "agents resume web-1").stderr
    assert socket.gethostname() not in agents[1].split()[0]


def test_an_agent_that_works_is_not_forgotten(fleet: Running) -> None:
    done = run(fleet, "agents forget web-1")

    assert done.returncode == 5
    assert b"web-1 is online: forget only an agent that is offline and runs nothing." in done.stderr


def test_work_on_every_agent_shows_a_line_for_each_and_its_exit_status_is_the_outcome(fleet: Running) -> None:
    fine = run(fleet, "dispatch shell_script --on all --wait -- true")
    wrong = run(fleet, "dispatch shell_script --on web-1 --batch 1 --stop-after 1 --wait -- false")

    assert (fine.returncode, wrong.returncode) == (0, 10)
    assert fine.stdout.decode().splitlines()[1].split()[:3] == ["web-1", "completed", "0"]
    assert wrong.stdout.decode().splitlines()[1].split()[:3] == ["web-1", "failed", "1"]
    assert b"1 agents: 1 completed" in fine.stderr


def test_work_on_several_agents_is_looked_at_later_by_its_id(fleet: Running) -> None:
    done = run(fleet, "dispatch echo --on all --param message=hi")
    fan_out = done.stdout.decode().strip()

    waited = run(fleet, f"status --wait {fan_out}")

    assert waited.returncode == 0, waited.stderr.decode()
    assert "web-1" in waited.stdout.decode()
    assert answer(fleet, f"status {fan_out} -o json")["counts"] == {"completed": 1}


def test_output_of_several_agents_is_not_followed_and_the_message_says_what_to_do(fleet: Running) -> None:
    done = run(fleet, "dispatch echo --on all --follow --param message=hi")

    assert done.returncode == 2
    assert b"use --wait with --on" in done.stderr
