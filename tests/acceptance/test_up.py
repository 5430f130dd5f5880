"""`chiffon up`: one command starts everything on one machine, over every broker, and stops it without a trace."""

import asyncio
import getpass
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from chiffon.up import warn_of_root
from tests.acceptance.deployment import CHIFFON, Up, chiffon, dispatch, environment, up
from tests.services import packages
from tests.services.ports import free_ports

# The tests that share one stay in one worker.
shared = pytest.mark.xdist_group("acceptance/up")


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[Up]:
    """One that the tests share which neither end it nor any part of it."""
    async with up("--agents", "1") as opened:
        yield opened


@pytest.mark.parametrize("broker", ["postgresql", "amqp", "memory"])
async def test_the_same_dispatch_works_over_every_broker_and_a_signal_stops_everything(
    broker: str, prepared: Path, request: pytest.FixtureRequest
) -> None:
    match broker:
        case "amqp":
            variables = {"CHIFFON_BROKER_URL": request.getfixturevalue("amqp_url")}
        case "memory":
            variables = {"CHIFFON_BROKER_URL": "memory://"}
        case _:
            variables = {}
    async with up("--agents", "1", on=prepared, **variables) as running:
        status, task = await dispatch(running.url, "echo", "hi")

        assert status == 0
        assert task["status"] == "completed"
        assert task["output"] == "hi\n"

        running.process.send_signal(signal.SIGTERM)
        assert await running.ends() == 0
        assert running.left_over() == []


@shared
async def test_the_outcome_of_real_work_is_the_exit_status(running: Up) -> None:
    status, task = await dispatch(running.url, "sh", "-c", "exit 7")
    assert (status, task["exit_code"]) == (10, 7)

    words = ("dispatch", "shell_script", "--wait", "-o", "json", "--server", running.url)
    status, _, _ = await chiffon(*words, "--max-duration", "0.5", "--", "sleep", "60")
    assert status == 12

    status, out, err = await chiffon(
        "dispatch", "shell_script", "-f", "--server", running.url, "--", "sh", "-c", "echo out; echo err >&2"
    )
    assert status == 0
    assert out == "out\n"
    assert "err\n" in err


@shared
async def test_this_host_is_measured_without_any_setting(running: Up) -> None:
    status, out, err = await chiffon("dispatch", "metrics", "--wait", "-o", "json", "--server", running.url)

    assert status == 0, err
    assert json.loads(json.loads(out)["output"])["cpu"]["cores"] == psutil.cpu_count()


async def test_others_change_nothing_of_it_and_read_no_secret_whatever_its_umask(
    prepared: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    user = "nobody" if os.geteuid() == 0 else None
    variables = {"XDG_CONFIG_HOME": str(config)}
    if user is not None:
        variables["CHIFFON_AGENT_RUN_AS"] = user
    async with up("--agents", "1", on=prepared, umask=0, **variables) as running:
        script = "umask; id -un; touch made; stat -c %a made"
        words = ("dispatch", "shell_script", "--wait", "-o", "json", "--server", running.url, "--", "sh", "-c", script)
        _, out, err = await chiffon(*words, **variables)

        # Work makes what a program on this host makes, and Chiffon what is its own.
        assert json.loads(out)["output"].split() == ["0022", user or getpass.getuser(), "644"], err
        for place in (running.state, config):
            for path in (place, *place.rglob("*")):
                if path.is_symlink():
                    continue
                mode = path.stat().st_mode & 0o777
                if "postgres-programs" in path.parts or path.is_dir():
                    assert mode & 0o022 == 0, f"{path}: {mode:o}"
                else:
                    assert mode & 0o077 == 0, f"{path}: {mode:o}"
        if user is not None:
            flock = ["flock", "--nonblock", str(running.state / "lock"), "true"]
            done = subprocess.run(flock, user=user, capture_output=True, text=True, check=False)
            assert "Permission denied" in done.stderr


async def test_sandboxed_work_finds_nothing_of_the_installation_that_runs_it(prepared: Path, tmp_path: Path) -> None:
    packages.install_missing()
    walls = {"CHIFFON_AGENT_CONFINEMENT": '{"sandbox": true}'} if packages.program("bwrap") else {}
    variables = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "CHIFFON_AGENT_SANDBOX_READABLE": "/etc/profile"}
    flags = ("--agents", "2", "--agent-types", "infra")
    async with up(*flags, on=prepared, umask=0o022, **walls, **variables) as running:
        names = ["token", "keys", "trusted_keys.pem", "lock", "logs", "audit", "postgres"]
        names += [f"agents/infra-{number}/identity.json" for number in (1, 2)]
        places = [*(running.state / name for name in names), tmp_path / "config", Path("/etc/shadow"), Path("/root")]
        assert all(place.exists() for place in places)
        # Turned round, because a token would be hidden in the output as it is.
        script = (
            f"for place in {' '.join(map(str, places))}; do [ -e $place ] && echo $place; done; "
            f"rev {running.state}/token {running.state}/keys/*.pem; head -c 1 /etc/profile | wc -c"
        )
        words = ("dispatch", "shell_script", "--wait", "-o", "json", "--server", running.url, "--", "sh", "-c", script)
        _, out, err = await chiffon(*words, **variables)
        token = (running.state / "token").read_text().strip()

    shown = json.loads(out)["output"]
    assert shown.split()[-1] == "1", err
    found = [place for place in map(str, places) if f"{place}\n" in shown]
    assert found == ([] if walls else [str(place) for place in places])
    assert (token[::-1] in shown) is (not walls)


async def test_a_state_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    status, _, err = await chiffon("up", "--state-dir", str(tmp_path))

    assert status != 0
    assert f"The state directory {tmp_path} can be written by every user" in err


@pytest.mark.parametrize(
    ("variables", "is_warned"),
    [
        ({}, True),
        ({"CHIFFON_AGENT_RUN_AS": "nobody"}, False),
        ({"CHIFFON_AGENT_CONFINEMENT": '{"sandbox": true}'}, False),
    ],
    ids=["as root", "as another user", "in the sandbox"],
)
def test_up_warns_where_work_could_read_its_keys(
    variables: dict[str, str], is_warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.geteuid", lambda: 0)

    warn_of_root(said.append)

    assert [line[:28] for line in said] == ["Warning: work runs as root, "] * is_warned


async def test_nothing_outlives_a_killed_up(prepared: Path) -> None:
    async with up(on=prepared) as running:
        assert len(running.children) > 3

        running.process.kill()
        await running.ends()

        assert running.left_over() == []


async def test_a_part_that_dies_ends_it_and_is_named(prepared: Path) -> None:
    async with up("--agents", "1", on=prepared) as running:
        agent = running.named("agent")[0]
        agent.kill()

        assert await running.ends() == 1
        assert running.process.stderr is not None
        messages = (await running.process.stderr.read()).decode()
        assert "infra-" in messages
        assert "killed by SIGKILL" in messages
        assert "agent.started" in messages
        assert running.left_over() == []


@shared
async def test_a_second_up_on_the_same_directory_is_refused(running: Up) -> None:
    words = running.named("server")[0].cmdline()
    assert words[-2] == "--port"
    command = psutil.Process(running.process.pid).cmdline()
    state = command[command.index("--state-dir") + 1]

    status, out, err = await chiffon("up", "--port", "0", "--state-dir", state)

    assert status == 1
    assert out == ""
    assert "Another `chiffon up` uses" in err


@shared
async def test_a_port_that_is_taken_is_refused_before_anything_starts(running: Up) -> None:
    port = running.url.rpartition(":")[2]

    status, _, err = await chiffon("up", "--port", port, "--state-dir", "/nowhere/at/all")

    assert status == 1
    assert f"Port {port}" in err
    assert "--port 0" in err


@shared
async def test_agents_of_several_types_are_all_there(running: Up) -> None:
    status, out, _ = await chiffon("agents", "--server", running.url)

    assert status == 0
    assert "desktop" in out
    assert "infra" in out


@pytest.mark.parametrize("words", [("server", "--port", "0"), ("db", "upgrade"), ("db", "current")])
async def test_a_database_that_is_not_there_is_said_in_words(words: tuple[str, ...]) -> None:
    (port,) = free_ports(1)
    url = f"postgresql://nobody@127.0.0.1:{port}/nothing"

    status, _, err = await chiffon(*words, CHIFFON_DATABASE_URL=url)

    assert status == 1
    assert "Traceback" not in err
    assert "The database cannot be used" in err


@shared
async def test_ctrl_c_detaches_and_the_work_goes_on(running: Up) -> None:
    task_id = str(uuid4())
    words = ["dispatch", "shell_script", "-f", "--task-id", task_id, "--server", running.url]
    # Reading from a pipe that nobody writes to: it runs until it is cancelled.
    script = "mkfifo pipe; echo started; read -r line < pipe"
    waiting = await asyncio.create_subprocess_exec(
        *CHIFFON,
        *words,
        *("--", "sh", "-c", script),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
        # A shell that starts the tests in the background has SIGINT ignored, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert waiting.stdout is not None
    assert await waiting.stdout.readline() == b"started\n"

    waiting.send_signal(signal.SIGINT)
    _, err = await waiting.communicate()

    assert waiting.returncode == 130
    assert f"chiffon logs -f {task_id}" in err.decode()
    status, out, _ = await chiffon("status", task_id, "-o", "json", "--server", running.url)
    assert (status, json.loads(out)["status"]) == (0, "running")
    status, _, _ = await chiffon("cancel", task_id, "--server", running.url)
    assert status == 0
