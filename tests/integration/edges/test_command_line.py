"""`chiffon` as a process: printing changes no exit status, and every refusal is one line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from agents.settings import AgentSettings
from tests.fuzz.running import Running, running_orchestrator
from tests.services.postgres import Postgres

ROOT = Path(__file__).parents[3]
NOBODY = 65534
TASK = "7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11"
UMLAUT = "Grüße ☂"


@pytest.fixture(scope="module")
async def fleet_ledger_url(postgres: Postgres, ledger_template: str) -> str:
    return await postgres.create_database(template=ledger_template)


@pytest.fixture(scope="module")
def fleet(fleet_ledger_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An orchestrator with one agent."""
    agent = AgentSettings(state_dir=tmp_path_factory.mktemp("agent") / "state", signatures="off")
    with running_orchestrator(fleet_ledger_url, agent=agent) as running:
        yield running


def chiffon(
    arguments: Sequence[str | bytes], *, stdout: int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "chiffon", *arguments]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )


def shell_command(line: str, *arguments: str) -> list[str]:
    """Return the command that runs a line in which `chiffon` is this command."""
    script = f'chiffon() {{ "{sys.executable}" -m chiffon "$@"; }}; set -o pipefail; {line}'
    return ["bash", "-c", script, "bash", *arguments]


def in_a_shell(line: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line in which `chiffon` is this command."""
    return subprocess.run(
        shell_command(line, *arguments),
        capture_output=True,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )


def assert_is_one_line(done: subprocess.CompletedProcess[bytes], *words: str, status: int) -> None:
    said = done.stderr.decode()
    assert (done.returncode, len(said.splitlines())) == (status, 1), said
    assert said.startswith("chiffon: ")
    assert "Traceback" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(("program", "status"), [("true", 0), ("exit 3", 10)])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_character_that_the_terminal_lacks_changes_no_exit_status(
    fleet: Running, encoding: str, program: str, status: int
) -> None:
    shell = ["--", "sh", "-c", f"echo '{UMLAUT}'; {program}"]

    done = chiffon(["dispatch", "--server", fleet.http, "shell_script", "-f", *shell], PYTHONIOENCODING=encoding)

    assert done.returncode == status, done.stderr
    assert done.stdout == f"{UMLAUT}\n".encode(encoding, "backslashreplace")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(fleet: Running, encoding: str) -> None:
    task = str(uuid4())
    dispatch = ["dispatch", "--server", fleet.http, "echo", "--task-id", task, "--param", f"message={UMLAUT}", "--wait"]
    assert chiffon(dispatch).returncode == 0

    done = chiffon(["status", task, "--server", fleet.http, "-o", "json"], PYTHONIOENCODING=encoding)

    assert done.returncode == 0
    assert json.loads(done.stdout.decode(encoding))["output"] == UMLAUT


@pytest.mark.parametrize(("program", "status"), [("true", 0), ("exit 3", 10)])
@pytest.mark.parametrize(
    ("where", "said"), [("> /dev/full", "No space left on device"), (">&-", ""), ("| :", ""), ("> /dev/full 2>&1", "")]
)
def test_output_that_cannot_be_written_changes_no_exit_status(
    fleet: Running, where: str, said: str, program: str, status: int
) -> None:
    line = f'chiffon dispatch --server "$1" shell_script -f -- sh -c "echo hello; {program}" {where}'

    done = in_a_shell(line, fleet.http)

    assert done.returncode == status, done.stderr
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("where", ["> /dev/full", "| head -n 1", ">&-"])
def test_a_long_text_ends_well_wherever_it_goes(where: str) -> None:
    done = in_a_shell(f"chiffon db upgrade --sql {where}")

    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


def test_a_watch_whose_reader_has_gone_ends_with_the_next_event(fleet: Running) -> None:
    line = 'chiffon watch --server "$1" --after 0 | head -n 1 >/dev/null'

    with subprocess.Popen(shell_command(line, fleet.http), stdout=subprocess.DEVNULL) as watch:
        deadline = time.monotonic() + 60
        while watch.poll() is None and time.monotonic() < deadline:
            assert chiffon(["dispatch", "--server", fleet.http, "echo", "--wait"]).returncode == 0
        watch.kill()

    assert watch.returncode == 0


def test_an_argument_that_is_no_text_is_named() -> None:
    server = ["--server", "http://127.0.0.1:9"]

    done = chiffon(["dispatch", "echo", *server, "--param", b"message=\xe9"])

    assert_is_one_line(done, "argument 6", "utf-8", r"b'message=\xe9'", status=2)


def test_a_parameter_that_is_given_twice_is_refused() -> None:
    done = chiffon(["dispatch", "echo", "--param", "message=a", "--param", "message=b"])

    assert_is_one_line(done, "message", "twice", status=2)


def test_a_key_that_is_unknown_or_signs_is_not_retired(tmp_path: Path) -> None:
    place = ["--directory", str(tmp_path / "keys")]
    key = chiffon(["keys", "rotate", *place]).stdout.decode().strip()

    assert_is_one_line(chiffon(["keys", "retire", "0" * 32, *place]), "There is no key", status=5)
    assert_is_one_line(chiffon(["keys", "retire", key, *place]), "only key", status=5)


@pytest.mark.parametrize(
    "command",
    [
        ["keys", "list", "--directory", "FILE"],
        ["keys", "rotate", "--directory", "FILE"],
        ["keys", "init", "--directory", "KEYS", "--public", "/proc/no/such"],
        ["spool", "FILE"],
        ["up", "--state-dir", "FILE"],
        ["agent", "--state-dir", "FILE", "--broker-url", "amqp://127.0.0.1:9"],
        ["server", "--database-url", "postgresql://a:b@127.0.0.1:9/c"],
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
    (tmp_path / "file").write_text("")
    places = {"FILE": str(tmp_path / "file"), "KEYS": str(tmp_path / "keys"), "NEW": str(tmp_path / "new")}

    done = chiffon(
        [places.get(word, word) for word in command], CHIFFON_AGENT_SIGNATURES="off", CHIFFON_ENROLMENT_TOKEN="che_x"
    )

    assert done.returncode == 1
    said = [line for line in done.stderr.decode().splitlines() if not line.startswith("{")]
    assert len(said) == 1, said
    assert said[0].startswith("chiffon: ")


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
    done = chiffon(["--debug", "keys", "retire", "x", "--directory", str(tmp_path)])

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

    done = chiffon(["dispatch", "--server", fleet.http, "shell_script", "-f", "--script", str(file)])

    assert (done.returncode, done.stdout) == (0, printed), done.stderr


def test_a_script_whose_first_line_names_options_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text("#!/bin/sh -e\nfalse\n")

    done = chiffon(["dispatch", "shell_script", "--script", str(file)])

    assert_is_one_line(done, "/bin/sh -e", "--param shell=PROGRAM", status=2)


def test_a_command_that_waits_ends_by_ctrl_c_without_a_traceback(fleet: Running) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "chiffon", "watch", "--server", fleet.http, "--after", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert chiffon(["dispatch", "--server", fleet.http, "echo", "--wait"]).returncode == 0
    assert watching.stdout is not None
    watching.stdout.readline()
    watching.send_signal(signal.SIGINT)

    _, said = watching.communicate(timeout=30)

    assert watching.returncode == 130
    assert b"Traceback" not in said
