"""The command line: printing changes no exit status, and every refusal is one line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

import pytest

from tests.command_lines import (
    Done,
    full_disk,
    gone_reader,
    run_here,
    run_in_a_shell,
    run_process,
    shell_command,
)
from tests.fuzz.running import Running

# One worker starts the orchestrator, for all of them.
pytestmark = pytest.mark.xdist_group("edges/command_line")

ROOT = Path(__file__).parents[3]
NOBODY = 65534
TASK = "7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11"
UMLAUT = "Grüße ☂"


def assert_is_one_line(done: Done, *words: str, status: int) -> None:
    said = done.stderr.decode()
    assert (done.returncode, len(said.splitlines())) == (status, 1), said
    assert said.startswith("chiffon: ")
    assert "Traceback" not in said
    for word in words:
        assert word in said


def follow(fleet: Running, program: str) -> list[str]:
    """Return the command line that runs a program of the shell and follows it."""
    return ["dispatch", "--server", fleet.http, "shell_script", "-f", "--", "sh", "-c", program]


def dispatch(fleet: Running, *more: str) -> None:
    """Run a task to its end."""
    assert run_here(["dispatch", "--server", fleet.http, "echo", *more, "--wait"]).returncode == 0


@pytest.mark.parametrize(("program", "status"), [("true", 0), ("exit 3", 10)])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_character_that_the_terminal_lacks_changes_no_exit_status(
    fleet: Running, encoding: str, program: str, status: int
) -> None:
    done = run_here(follow(fleet, f"echo '{UMLAUT}'; {program}"), encoding=encoding)

    assert done.returncode == status, done.stderr
    assert done.stdout == f"{UMLAUT}\n".encode(encoding, "backslashreplace")


def test_a_process_has_the_encoding_of_its_terminal_and_the_exit_status_of_its_command(fleet: Running) -> None:
    done = run_process(follow(fleet, f"echo '{UMLAUT}'; exit 3"), PYTHONIOENCODING="ascii")

    assert done.returncode == 10, done.stderr
    assert done.stdout == f"{UMLAUT}\n".encode("ascii", "backslashreplace")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(fleet: Running, encoding: str) -> None:
    task = str(uuid4())
    dispatch(fleet, "--task-id", task, "--param", f"message={UMLAUT}")

    done = run_here(["status", task, "--server", fleet.http, "-o", "json"], encoding=encoding)

    assert done.returncode == 0
    assert json.loads(done.stdout.decode(encoding))["output"] == UMLAUT


@pytest.mark.parametrize(("program", "status"), [("true", 0), ("exit 3", 10)])
@pytest.mark.parametrize(("where", "said"), [(full_disk, "No space left on device"), (gone_reader, "")])
def test_output_that_cannot_be_written_changes_no_exit_status(
    fleet: Running, where: Callable[[], AbstractContextManager[IO[bytes]]], said: str, program: str, status: int
) -> None:
    with where() as nowhere:
        done = run_here(follow(fleet, f"echo hello; {program}"), stdout=nowhere)
        silent = run_here(follow(fleet, f"echo hello; {program}"), stdout=nowhere, stderr=nowhere)

    assert (done.returncode, silent.returncode) == (status, status), done.stderr
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(("where", "program", "status"), [(">&-", "true", 0), ("> /dev/full 2>&1", "exit 3", 10)])
def test_a_process_whose_output_cannot_be_written_ends_as_its_command_does(
    fleet: Running, where: str, program: str, status: int
) -> None:
    done = run_in_a_shell(f'chiffon "$@" {where}', *follow(fleet, f"echo hello; {program}"))

    assert done.returncode == status, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("where", [full_disk, gone_reader])
def test_a_long_text_ends_well_wherever_it_goes(where: Callable[[], AbstractContextManager[IO[bytes]]]) -> None:
    with where() as nowhere:
        done = run_here(["db", "upgrade", "--sql"], stdout=nowhere)

    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("where", ["| head -n 1", ">&-"])
def test_a_long_text_of_a_process_ends_well_wherever_it_goes(where: str) -> None:
    done = run_in_a_shell(f"chiffon db upgrade --sql {where}")

    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_a_watch_whose_reader_has_gone_ends_with_the_next_event(fleet: Running) -> None:
    line = 'chiffon watch --server "$1" --after 0 | head -n 1 >/dev/null'

    with subprocess.Popen(shell_command(line, fleet.http), stdout=subprocess.DEVNULL) as watch:
        deadline = time.monotonic() + 60
        while watch.poll() is None and time.monotonic() < deadline:
            dispatch(fleet)
            with suppress(subprocess.TimeoutExpired):
                watch.wait(0.2)
        watch.kill()

    assert watch.returncode == 0


def test_an_argument_that_is_no_text_is_named() -> None:
    server = ["--server", "http://127.0.0.1:9"]

    done = run_here(["dispatch", "echo", *server, "--param", os.fsdecode(b"message=\xe9")])

    assert_is_one_line(done, "argument 6", "utf-8", r"b'message=\xe9'", status=2)


def test_a_parameter_that_is_given_twice_is_refused() -> None:
    done = run_here(["dispatch", "echo", "--param", "message=a", "--param", "message=b"])

    assert_is_one_line(done, "message", "twice", status=2)


def test_a_key_that_is_unknown_or_signs_is_not_retired(tmp_path: Path) -> None:
    place = ["--directory", str(tmp_path / "keys")]
    key = run_here(["keys", "rotate", *place]).stdout.decode().strip()

    assert_is_one_line(run_here(["keys", "retire", "0" * 32, *place]), "There is no key", status=5)
    assert_is_one_line(run_here(["keys", "retire", key, *place]), "only key", status=5)


def placed(command: list[str], folder: Path) -> list[str]:
    """Return a command line with what its capitals stand for: a file, and what is not there yet."""
    (folder / "file").write_text("")
    places = {"FILE": str(folder / "file"), "KEYS": str(folder / "keys"), "NEW": str(folder / "new")}
    return [places.get(word, word) for word in command]


def assert_is_refused_in_one_line(done: Done) -> None:
    assert done.returncode == 1
    said = [line for line in done.stderr.decode().splitlines() if not line.startswith("{")]
    assert len(said) == 1, said
    assert said[0].startswith("chiffon: ")


@pytest.mark.parametrize(
    "command",
    [
        ["keys", "list", "--directory", "FILE"],
        ["keys", "rotate", "--directory", "FILE"],
        ["keys", "init", "--directory", "KEYS", "--public", "/proc/no/such"],
        ["up", "--state-dir", "FILE"],
        ["db", "upgrade", "--database-url", "postgresql://a:b@127.0.0.1:9/c"],
        ["db", "current", "--database-url", "postgresql://a:b@127.0.0.1:9/c"],
        ["status", TASK, "--server", "http://[::1"],
        ["status", TASK, "--server", "nowhere"],
        ["agent", "enrol", "--server", "http://[::1", "--state-dir", "NEW"],
        ["policy", "check", "/"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_what_the_system_refuses_is_one_line(tmp_path: Path, command: list[str]) -> None:
    done = run_here(placed(command, tmp_path), CHIFFON_ENROLMENT_TOKEN="che_x")

    assert_is_refused_in_one_line(done)


# These set up the log of their process, among other things.
@pytest.mark.parametrize(
    "command",
    [
        ["spool", "FILE"],
        ["agent", "--state-dir", "FILE", "--broker-url", "amqp://127.0.0.1:9"],
        ["server", "--database-url", "postgresql://a:b@127.0.0.1:9/c"],
    ],
    ids=lambda command: command[0],
)
def test_what_the_system_refuses_a_process_that_stays_is_one_line(tmp_path: Path, command: list[str]) -> None:
    done = run_process(placed(command, tmp_path), CHIFFON_AGENT_SIGNATURES="off")

    assert_is_refused_in_one_line(done)


def test_a_state_directory_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    command = [sys.executable, "-m", "chiffon", "agent", "enrol", "--server", "http://127.0.0.1:9"]
    if os.geteuid() == 0:
        # Root without the right to pass over permissions, before a directory of somebody else.
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
        os.chown(state, NOBODY, NOBODY)
    state.chmod(0o700 if os.geteuid() == 0 else 0)

    done = subprocess.run(
        [*command, "--state-dir", str(state)], input=b"che_x\n", capture_output=True, timeout=60, check=False
    )

    assert_is_one_line(done, str(state), "Permission denied", status=1)


def test_debug_shows_where_it_happened(tmp_path: Path) -> None:
    done = run_here(["--debug", "keys", "retire", "x", "--directory", str(tmp_path)])

    assert done.returncode == 5
    assert "Traceback" in done.stderr.decode()
    assert done.stderr.decode().splitlines()[-1].startswith("chiffon: There is no key")


def test_the_example_without_arguments_says_how_it_is_used() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "worker.py"], capture_output=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
    assert "SERVER [WORKER_ID]" in done.stderr.decode()


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        (b"\xef\xbb\xbf#!/bin/sh\r\necho hello\r\n", b"hello\n"),
        (b"#!/bin/bash\n[[ hello == h* ]] && echo hello\n", b"hello\n"),
        (b"#!/usr/bin/env bash\n[[ hello == h* ]] && echo hello\n", b"hello\n"),
    ],
)
def test_a_script_runs_as_its_first_line_says(fleet: Running, tmp_path: Path, script: bytes, printed: bytes) -> None:
    file = tmp_path / "script"
    file.write_bytes(script)

    done = run_here(["dispatch", "--server", fleet.http, "shell_script", "-f", "--script", str(file)])

    assert (done.returncode, done.stdout) == (0, printed), done.stderr


def test_a_script_whose_first_line_names_options_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text("#!/bin/sh -e\nfalse\n")

    done = run_here(["dispatch", "shell_script", "--script", str(file)])

    assert_is_one_line(done, "/bin/sh -e", "--param shell=PROGRAM", status=2)


def test_a_command_that_waits_ends_by_ctrl_c_without_a_traceback(fleet: Running) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "chiffon", "watch", "--server", fleet.http, "--after", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    dispatch(fleet)
    assert watching.stdout is not None
    watching.stdout.readline()
    watching.send_signal(signal.SIGINT)

    _, said = watching.communicate(timeout=30)

    assert watching.returncode == 130
    assert b"Traceback" not in said
