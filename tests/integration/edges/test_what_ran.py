"""What a task ran, for whom and where, as people see it on the command line; and what they call things."""

import json
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from agents.settings import AgentSettings
from tests.fuzz.running import Running, running_orchestrator
from tests.integration.edges.test_command_line import in_a_shell
from tests.services.postgres import Postgres

pytestmark = pytest.mark.xdist_group("edges/what_ran")

TOKEN = "ghp_" + "a1B2c3D4e5" * 4


@pytest.fixture(scope="module")
async def fleet_ledger_url(postgres: Postgres, ledger_template: str) -> str:
    return await postgres.create_database(template=ledger_template)


@pytest.fixture(scope="module")
def fleet(fleet_ledger_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An orchestrator with one agent, which is called web-1."""
    agent = AgentSettings(state_dir=tmp_path_factory.mktemp("agent") / "state", signatures="off", name="web-1")
    with running_orchestrator(fleet_ledger_url, agent=agent) as running:
        yield running


def run(fleet: Running, line: str) -> subprocess.CompletedProcess[bytes]:
    return in_a_shell(line, CHIFFON_SERVER=f"http://{fleet.address}")


def answer(fleet: Running, line: str) -> Any:
    done = run(fleet, line)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def dispatched(fleet: Running, words: str) -> str:
    task: str = answer(fleet, f"chiffon dispatch --wait -o json {words}")["task_id"]
    return task


@pytest.mark.parametrize(
    "line",
    [
        "echo 'echo from-stdin' | chiffon dispatch shell_script --wait -o json --script -",
        """echo '{"argv": ["echo", "from-stdin"]}' | chiffon dispatch shell_script --wait -o json --params-file -""",
    ],
)
def test_a_single_hyphen_reads_standard_input(fleet: Running, line: str) -> None:
    assert answer(fleet, line)["output"] == "from-stdin\n"


def test_a_single_hyphen_reads_what_an_approval_is_asked_for(fleet: Running) -> None:
    done = run(fleet, """echo '{"argv": ["reboot"]}' | chiffon approvals ask shell_script --params-file - --note now""")

    # It was read: the policy answers, which lets this run without an approval.
    assert (done.returncode, b"[3003]" in done.stderr) == (5, True), done.stderr.decode()


def test_a_task_shows_its_program_its_name_its_labels_and_its_agent(fleet: Running) -> None:
    task = dispatched(fleet, "shell_script --name backup --label env=prod --label team=web --agent web-1 -- echo hi")

    detail = run(fleet, f"chiffon status {task}").stdout.decode()
    listed = run(fleet, "chiffon tasks --name backup").stdout.decode()
    found = answer(fleet, f"chiffon status {task} -o json")

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

    assert "printf %s 'a b'" in run(fleet, "chiffon tasks").stdout.decode()


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

    listed = {item["task_id"] for item in answer(fleet, f"chiffon tasks {filters} --limit 200 -o json")["items"]}

    assert (task in listed) is found


def test_events_carry_name_and_labels(fleet: Running) -> None:
    task = dispatched(fleet, "echo --name told --label env=prod --param message=hi")

    events = httpx2.get(f"http://{fleet.address}/api/v1/tasks/{task}/events").json()["items"]

    [first] = [event for event in events if event["kind"] == "task.dispatched"]
    assert (first["data"]["name"], first["data"]["labels"]) == ("told", {"env": "prod"})


def test_what_looks_like_a_secret_is_hidden_in_the_parameters_and_runs_all_the_same(fleet: Running) -> None:
    task = dispatched(fleet, f"shell_script -- sh -c 'test $0 = {TOKEN}' {TOKEN}")

    shown = run(fleet, f"chiffon status {task} -o json").stdout.decode()
    listed = run(fleet, "chiffon tasks -o json").stdout.decode()

    assert json.loads(shown)["status"] == "completed"
    assert TOKEN not in shown
    assert TOKEN not in listed


def test_a_list_shortens_long_parameters_and_a_task_by_itself_does_not(fleet: Running) -> None:
    task = dispatched(fleet, f"echo --param message={'x' * 5000}")

    [item] = [one for one in answer(fleet, "chiffon tasks --limit 200 -o json")["items"] if one["task_id"] == task]

    assert len(item["parameters"]["message"]) < 300
    assert "(5000 characters)" in item["parameters"]["message"]
    assert len(answer(fleet, f"chiffon status {task} -o json")["parameters"]["message"]) == 5000


def test_an_agent_is_listed_under_its_name_and_ordered_by_it(fleet: Running) -> None:
    agents = run(fleet, "chiffon agents").stdout.decode().splitlines()

    assert agents[1].startswith("web-1 ")
    assert b"Paused: web-1 on web-1" in run(fleet, "chiffon agents pause web-1 --minutes 1").stderr
    assert b"Resumed: web-1 on web-1" in run(fleet, "chiffon agents resume web-1").stderr
    assert socket.gethostname() not in agents[1].split()[0]


def test_an_agent_that_works_is_not_forgotten(fleet: Running) -> None:
    done = run(fleet, "chiffon agents forget web-1")

    assert done.returncode == 5
    assert b"web-1 is online: forget only an agent that is offline and runs nothing." in done.stderr


def test_work_on_every_agent_shows_a_line_for_each_and_its_exit_status_is_the_outcome(fleet: Running) -> None:
    fine = run(fleet, "chiffon dispatch shell_script --on all --wait -- true")
    wrong = run(fleet, "chiffon dispatch shell_script --on web-1 --batch 1 --stop-after 1 --wait -- false")

    assert (fine.returncode, wrong.returncode) == (0, 10)
    assert fine.stdout.decode().splitlines()[1].split()[:3] == ["web-1", "completed", "0"]
    assert wrong.stdout.decode().splitlines()[1].split()[:3] == ["web-1", "failed", "1"]
    assert b"1 agents: 1 completed" in fine.stderr


def test_work_on_several_agents_is_looked_at_later_by_its_id(fleet: Running) -> None:
    done = run(fleet, "chiffon dispatch echo --on all --param message=hi")
    fan_out = done.stdout.decode().strip()

    waited = run(fleet, f"chiffon status --wait {fan_out}")

    assert waited.returncode == 0, waited.stderr.decode()
    assert "web-1" in waited.stdout.decode()
    assert answer(fleet, f"chiffon status {fan_out} -o json")["counts"] == {"completed": 1}


def test_output_of_several_agents_is_not_followed_and_the_message_says_what_to_do(fleet: Running) -> None:
    done = run(fleet, "chiffon dispatch echo --on all --follow --param message=hi")

    assert done.returncode == 2
    assert b"use --wait with --on" in done.stderr
