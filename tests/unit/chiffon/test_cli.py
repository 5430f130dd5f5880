"""The command line: what it prints where, and its exit statuses."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cyclopts import App

from chiffon.cli.app import COMMANDS, run
from chiffon.cli.outcome import Exit
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ({"status": "completed", "exit_code": 0}, Exit.OK),
        ({"status": "failed", "exit_code": 3}, Exit.WORK_FAILED),
        ({"status": "failed", "error_code": 5001}, Exit.WORK_TIMED_OUT),
        ({"status": "cancelled"}, Exit.WORK_CANCELLED),
    ],
)
@pytest.mark.parametrize("flag", ["--wait", "-f"])
def test_the_outcome_of_the_work_is_the_exit_status(
    fake: FakeOrchestrator, url: str, outcome: dict[str, object], status: Exit, flag: str
) -> None:
    fake.outcome = outcome

    assert run(["dispatch", "shell_script", flag, "--server", url, "--", "true"]) == status


def test_dispatch_prints_the_id_alone_on_standard_output(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["dispatch", "shell_script", "--server", url, "-p", "5", "--", "uname", "-a"]) == Exit.OK

    (sent,) = fake.dispatches
    assert capfd.readouterr().out == sent["task_id"] + "\n"
    assert sent["parameters"] == {"argv": ["uname", "-a"]}
    assert sent["priority"] == 5


def test_json_is_one_document_and_nothing_else(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["dispatch", "echo", "--wait", "-o", "json", "--server", url, "--param", "message=hi"]) == Exit.OK

    document = json.loads(capfd.readouterr().out)
    assert document["status"] == "completed"


def test_events_are_one_json_object_a_line(fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]) -> None:
    task_id = str(uuid4())
    fake.add_task(task_id)

    assert run(["logs", "-f", task_id, "-o", "json", "--server", url]) == Exit.OK

    kinds = [json.loads(line)["kind"] for line in capfd.readouterr().out.splitlines()]
    assert kinds == ["task.dispatched", "task.claimed", "task.output", "task.completed"]


@pytest.mark.parametrize("flags", [[], ["-f"]])
def test_logs_keep_the_two_streams_apart(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    task_id = str(uuid4())
    fake.output = [("stdout", "one\n"), ("stderr", "oh\n"), ("stdout", "two\n")]
    fake.add_task(task_id)

    assert run(["logs", *flags, task_id, "--server", url]) == Exit.OK

    printed = capfd.readouterr()
    assert printed.out == "one\ntwo\n"
    assert printed.err.startswith("oh\n")


def test_what_is_not_there_is_not_found(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["status", str(uuid4()), "--server", url]) == Exit.NOT_FOUND

    printed = capfd.readouterr()
    assert printed.out == ""
    assert "No task has this id. [2001]" in printed.err


def test_a_task_that_has_ended_cannot_be_cancelled(fake: FakeOrchestrator, url: str) -> None:
    task_id = str(uuid4())
    fake.add_task(task_id)

    assert run(["cancel", task_id, "--server", url]) == Exit.CONFLICT


def test_a_running_task_is_cancelled(fake: FakeOrchestrator, url: str) -> None:
    task_id = str(uuid4())
    fake.add_task(task_id, status="running")

    assert run(["cancel", task_id, "--server", url]) == Exit.OK
    assert fake.tasks[task_id]["status"] == "cancelled"


def test_a_work_type_that_nobody_knows_is_wrong_usage(url: str) -> None:
    assert run(["dispatch", "unheard_of", "--server", url]) == Exit.USAGE


def test_a_server_that_is_not_there_has_an_exit_status_of_its_own(
    nobody_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["tasks", "--server", nobody_url]) == Exit.UNREACHABLE
    assert "chiffon up" in capfd.readouterr().err


def test_the_server_is_also_named_by_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHIFFON_SERVER", url)

    assert run(["tasks", "-o", "json"]) == Exit.OK
    assert json.loads(capfd.readouterr().out) == {"items": [], "next_cursor": None}


def test_a_table_that_no_terminal_reads_is_plain_and_whole(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    task_id = str(uuid4())
    fake.add_task(task_id)

    assert run(["tasks", "--server", url]) == Exit.OK

    printed = capfd.readouterr().out
    assert task_id in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("words", [["dispatch"], ["status", "no-uuid"], ["dispatch", "echo", "--nope"], ["bogus"]])
def test_wrong_usage_ends_with_two_also_for_the_parser(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "chiffon", *words], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["server", "agent"])
def test_a_broker_in_memory_is_refused_where_nobody_could_share_it(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([command, "--broker-url", "memory://"]) == Exit.ERROR
    assert "chiffon up" in capfd.readouterr().err


def test_the_summaries_are_those_of_the_commands() -> None:
    for name, command in COMMANDS.items():
        module, _, attribute = command.target.partition(":")
        target = getattr(import_module(module), attribute)
        assert _help_of(target).splitlines()[0] == command.summary, name


def _help_of(target: Any) -> str:
    """Return the help of a command, or of an app: its own, or that of what it does by default."""
    if isinstance(target, App):
        target = target.default_command or target
    return target.help if isinstance(target, App) else target.__doc__


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in COMMANDS
        if name
        not in ("approvals", "audit", "db", "dead-letters", "keys", "ops", "policy", "rabbitmq", "runs", "services")
    ],
)
def test_every_help_teaches_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run([name, "--help"])

    assert re.search(rf"^ ?chiffon {name}|^ ?\S+=\S+ chiffon {name}", capsys.readouterr().out, re.MULTILINE)


def test_the_list_of_commands_appears_at_once() -> None:
    before = os.times()
    done = subprocess.run([sys.executable, "-m", "chiffon", "--help"], capture_output=True, text=True, check=True)
    after = os.times()

    # Processor time: others on the machine do not count.
    assert sum(after[2:4]) - sum(before[2:4]) < 1.5
    for name in COMMANDS:
        assert name in done.stdout


def test_what_a_command_makes_is_for_its_user_alone_whatever_the_umask(tmp_path: Path, nobody_url: str) -> None:
    command = [sys.executable, "-m", "chiffon", "spool", str(tmp_path / "spool"), "--once", "--server", nobody_url]

    subprocess.run(command, umask=0, capture_output=True, check=True)

    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "spool").iterdir()}
    assert modes == {".lock": 0o600} | dict.fromkeys(("incoming", "processing", "outgoing", "failed"), 0o700)
