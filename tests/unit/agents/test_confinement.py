"""Programs stay inside their walls; a wall that this host cannot build is refused, and never left out.

As root these tests try the walls. Where the suite runs as somebody else, or without bubblewrap, they see the refusal.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from agents.attempts.stopping import StopReason, StopSignal
from agents.executors.base import ExecutionContext, Outcome
from agents.executors.enclosure import User
from agents.executors.enforcement import CannotConfine, ConfinementUnusable, Enforcement, probe
from agents.executors.permitted import Permitted
from agents.executors.shell import ShellExecutor
from agents.processes.keepers import Keepers
from agents.processes.table import look_at
from common.confinement import UNCONFINED, Confinement
from common.messages import ResultStatus, Stream, WorkRequest
from tests.eventually import eventually
from tests.services import packages

IS_ROOT = os.geteuid() == 0
OTHER_USER = "nobody" if IS_ROOT else pwd.getpwuid(os.geteuid()).pw_name
ANYWHERE = Path("/var/tmp")


@pytest.fixture(scope="module", autouse=True)
def bubblewrap() -> None:
    """Have the program that builds the sandbox installed, where the suite may do that."""
    packages.install_missing()


@pytest.fixture
async def workspaces() -> AsyncIterator[Path]:
    """A place that every user may pass through, which pytest's own is not."""
    place = ANYWHERE / f"chiffon-test-{uuid4()}"
    (place / "work").mkdir(parents=True)
    yield place / "work"
    shutil.rmtree(place)


async def enforcement(
    workspaces: Path, *, run_as: str | None = None, readable: Sequence[Path] = (), writable: Sequence[Path] = ()
) -> Enforcement:
    with Keepers() as keepers:
        return await probe(
            keepers,
            run_as=run_as,
            least=UNCONFINED,
            workspaces=workspaces,
            readable=readable,
            writable=writable,
            hidden=(workspaces.parent,),
        )


async def run(
    host: Enforcement, workspaces: Path, script: str, *, stop: StopSignal | None = None, **demanded: object
) -> tuple[Outcome, str]:
    """Run a script that these walls are demanded for; raises `CannotConfine` where there are none.

    Return its outcome and what it wrote, its standard output first: the order between two pipes is left to chance.
    """
    output = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}

    async def write(stream: Stream, data: bytes) -> None:
        output[stream].extend(data)

    enclosure = host.enclosure(Confinement.model_validate(demanded))
    workspace = workspaces / str(uuid4())
    workspace.mkdir(mode=0o700)
    parameters = {"script": script, "max_duration_seconds": 30}
    work = WorkRequest.model_validate({"task_id": uuid4(), "work_type": "shell_script", "parameters": parameters})
    with Keepers() as keepers:
        context = ExecutionContext(
            workspace=workspace,
            inherited={"PATH": "/usr/bin:/bin"},
            ids={"CHIFFON_TASK_ID": str(uuid4()), "CHIFFON_ATTEMPT": "1"},
            write=write,
            stop=stop or StopSignal(),
            kill_grace_seconds=5.0,
            keepers=keepers,
            enclosure=enclosure,
        )
        outcome = await ShellExecutor().execute(Permitted(work), context)
    return outcome, b"".join(output.values()).decode(errors="replace")


def python(code: str) -> str:
    return f"exec {sys.executable} -I -S - <<'EOF'\n{code}\nEOF"


async def test_no_program_gains_rights_or_leaves_a_core_file(workspaces: Path) -> None:
    script = "grep NoNewPrivs /proc/self/status; ulimit -c; umask; echo $TMPDIR; touch made; stat -c %a made"

    _, output = await run(await enforcement(workspaces), workspaces, script)

    assert output.split()[:4] == ["NoNewPrivs:", "1", "0", "0022"]
    assert output.split()[4].startswith(str(workspaces))
    assert output.split()[5] == "644"


async def test_a_memory_hog_gets_no_more_than_it_may_have(workspaces: Path) -> None:
    hog = python("try:\n    b = bytearray(256 * 1024 * 1024)\nexcept MemoryError:\n    print('refused')")

    _, output = await run(await enforcement(workspaces), workspaces, hog, max_memory_bytes=128 * 1024 * 1024)
    _, free = await run(await enforcement(workspaces), workspaces, hog)

    assert (output, free) == ("refused\n", "")


async def test_files_open_files_and_processor_time_are_bounded(workspaces: Path) -> None:
    host = await enforcement(workspaces)

    large, _ = await run(host, workspaces, "head -c 2000 /dev/zero > file", max_file_bytes=1000)
    _, files = await run(host, workspaces, "ulimit -n", max_open_files=20)
    busy, _ = await run(host, workspaces, "while :; do :; done", max_cpu_seconds=1)

    assert large.status is ResultStatus.FAILED
    assert files == "20\n"
    assert busy.error_message == "The program was ended by signal SIGKILL."


async def test_a_fork_bomb_is_bounded(workspaces: Path) -> None:
    bomb = "i=0; while [ $i -lt 2000 ]; do sleep 60 & i=$((i+1)); done; echo nobody stopped me"
    limit = 100 + sum(1 for process in psutil.process_iter(["username"]) if process.info["username"] == OTHER_USER)

    if not IS_ROOT:
        outcome, output = await run(await enforcement(workspaces), workspaces, bomb, max_processes=limit)
    else:
        with pytest.raises(CannotConfine, match="max_processes"):  # the kernel does not count those of root
            await run(await enforcement(workspaces), workspaces, bomb, max_processes=limit)
        host = await enforcement(workspaces, run_as=OTHER_USER)
        outcome, output = await run(host, workspaces, bomb, max_processes=limit)

    assert "fork" in output
    assert "nobody stopped me" not in output
    assert outcome.status is ResultStatus.FAILED


async def test_a_fork_bomb_whose_processes_all_leave_the_session_is_dead_after_a_cancel(workspaces: Path) -> None:
    # Where there is no room for more it waits a little: so many busy processes would hold up the tests beside it, also
    # when they are nice, as the kernel shares the processor between sessions.
    forks = (
        "while (1) { my $child = fork; setsid unless $child; select undef, undef, undef, 0.005 unless defined $child }"
    )
    bomb = f"perl -MPOSIX -e '{forks}' bomb-of-sessions & touch ready; wait"
    limit = 60 + sum(1 for process in psutil.process_iter(["username"]) if process.info["username"] == OTHER_USER)
    host, stop = await enforcement(workspaces, run_as=OTHER_USER if IS_ROOT else None), StopSignal()
    running = asyncio.create_task(run(host, workspaces, bomb, stop=stop, max_processes=limit))
    await eventually(lambda: list(workspaces.glob("*/ready")) and len(_named("bomb-of-sessions")) > 30, timeout=30)

    stop.order(StopReason.CANCELLED, grace=0.2)
    await running

    assert _named("bomb-of-sessions") == []


@pytest.mark.parametrize("run_as", [None, OTHER_USER])
async def test_without_a_network_nobody_can_be_reached_and_there_is_no_way_back(
    workspaces: Path, run_as: str | None
) -> None:
    host = await enforcement(workspaces, run_as=run_as)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reach = f"bash -c '(exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo reached || echo cut off'"
    script = f"{reach}; nsenter -t {os.getpid()} -n true 2>/dev/null && echo back"
    async with server:
        if "network_off" not in host.possible:
            with pytest.raises(CannotConfine, match="network_off"):
                await run(host, workspaces, script, network_off=True)
            return
        _, output = await run(host, workspaces, script, network_off=True)
        _, free = await run(host, workspaces, reach)

    assert output == "cut off\n"
    assert free == "reached\n"


async def test_another_user_reads_nothing_of_the_agent_and_owns_its_workspace(workspaces: Path) -> None:
    credential = workspaces.parent / "credential"
    credential.write_text("the credential")
    credential.chmod(0o600)
    if not IS_ROOT:
        with pytest.raises(ConfinementUnusable, match="only an agent that runs as root"):
            await enforcement(workspaces, run_as="root")
        return
    host = await enforcement(workspaces, run_as=OTHER_USER)
    script = f"id -un; id -G; touch mine && echo made; ls {workspaces.parent} || cat {credential} || echo kept"

    _, output = await run(host, workspaces, script + f"; kill -0 {os.getpid()} || echo out of reach", own_user=True)

    lines = [line for line in output.splitlines() if line and "denied" not in line and "not permitted" not in line]
    assert lines == [OTHER_USER, str(pwd.getpwnam(OTHER_USER).pw_gid), "made", "kept", "out of reach"]


async def test_a_setuid_program_gains_nothing(workspaces: Path) -> None:
    if not IS_ROOT:
        assert "own_user" not in (await enforcement(workspaces)).possible
        return
    program = workspaces.parent / "id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)

    _, output = await run(await enforcement(workspaces, run_as=OTHER_USER), workspaces, f"{program} -un", own_user=True)

    assert output == f"{OTHER_USER}\n"


@pytest.mark.parametrize("network_off", [False, True])
@pytest.mark.parametrize("run_as", [None, OTHER_USER])
async def test_in_the_sandbox_nothing_but_the_workspace_and_tmp_can_be_written(
    workspaces: Path, run_as: str | None, network_off: bool
) -> None:
    host = await enforcement(workspaces, run_as=run_as)
    outside = f"outside-{uuid4()}"
    places = [str(ANYWHERE), "/usr", "/etc", "/", "/proc/sys/kernel", "/dev", "/tmp"]
    script = (
        f"for place in {' '.join(places)}; do (touch $place/{outside}) 2>/dev/null && echo $place; done; "
        # As root, and without any capability, a program could write this file in a /proc of its own.
        "cd /proc/sys/kernel; it=$(cat core_pattern); (echo $it > core_pattern) 2>/dev/null && echo kernel; cd ~; "
        "mount -o remount,rw /usr 2>/dev/null && echo remounted; echo 1 > mine; ls mine; exit 7"
    )
    demanded: dict[str, Any] = {"sandbox": True, "network_off": network_off}
    if "sandbox" not in host.possible:
        with pytest.raises(CannotConfine, match="sandbox"):
            await run(host, workspaces, script, **demanded)
        return

    outcome, output = await run(host, workspaces, script, **demanded)

    # What is written to the first, the last and /dev is in memory, and gone with the program.
    assert output.split() == [str(ANYWHERE), "/dev", "/tmp", "mine"]
    assert outcome.exit_code == 7
    assert not [place for place in map(Path, places) if (place / outside).exists()]


@pytest.mark.parametrize("network_off", [False, True])
@pytest.mark.parametrize("run_as", [None, OTHER_USER])
async def test_in_the_sandbox_only_what_is_named_can_be_seen(
    workspaces: Path, run_as: str | None, network_off: bool
) -> None:
    host = await enforcement(workspaces, run_as=run_as)
    script = "ls -d /* /etc/* /dev/* /var/* /proc/[0-9]*; cat /proc/1/cmdline | tr '\\0' ' '; id -un; pwd"
    demanded: dict[str, Any] = {"sandbox": True, "network_off": network_off}
    if "sandbox" not in host.possible:
        with pytest.raises(CannotConfine, match="sandbox"):
            await run(host, workspaces, script, **demanded)
        return

    outcome, output = await run(host, workspaces, script, **demanded)

    seen = set(output.split())
    assert outcome.status is ResultStatus.COMPLETED, output
    assert {"/usr", "/bin", "/tmp", "/etc/passwd", "/dev/null", run_as or pwd.getpwuid(os.geteuid()).pw_name} <= seen
    assert not seen & {"/root", "/home", "/run", "/srv", "/opt", "/boot", "/sys", "/mnt", "/var/run", "/var/lib"}
    assert not seen & {"/etc/shadow", "/etc/gshadow", "/etc/ssh", "/etc/sudoers", "/etc/postgresql", "/etc/environment"}
    assert ("/etc/resolv.conf" in seen) is (Path("/etc/resolv.conf").exists() and not network_off)
    assert f"/proc/{os.getpid()}" not in seen


async def test_in_the_sandbox_no_secret_of_the_host_and_no_socket_can_be_reached(
    workspaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script tries what a program of the agent's own user reaches outside of the sandbox."""
    place = workspaces.parent
    own = ["agents/infra-1/identity.json", "agents/infra-1/credential.json", "agents/infra-1/trusted_keys.json"]
    others = ["agents/infra-2/identity.json", f"agents/infra-2/{workspaces.name}/another-1/script"]
    installation = ["token", "keys/0123456789abcdef.pem", "trusted_keys.pem", "chiffon.toml", "lock"]
    homes = [
        "root/.ssh/id_ed25519",
        "root/.config/chiffon/tokens/127.0.0.1-8420",
        f"{workspaces.name}/another-2/script",
    ]
    files = [place / name for name in (*own, *others, *installation, *homes)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"the secret of {file.name}")
    sockets = [place / "docker.sock", place / ".s.PGSQL.5432"]
    listeners = [await asyncio.start_unix_server(lambda _reader, writer: writer.close(), path) for path in sockets]
    home = Path.home()
    tried = [*files, home / ".ssh", home / ".config", *map(Path, ("/etc/shadow", "/run/docker.sock", "/var/run"))]
    script = (
        f"for file in {' '.join(map(str, [*tried, *sockets]))}; do [ -e $file ] && echo $file; cat $file; done; "
        + "; ".join(
            f'perl -MIO::Socket::UNIX -e \'print "reached" if IO::Socket::UNIX->new("{one}")\'' for one in sockets
        )
        + f"; tr '\\0' '\\n' < /proc/{os.getpid()}/environ"
    )
    monkeypatch.setenv("CHIFFON_SECRET_OF_THE_AGENT", "the secret of the environment")
    host = await enforcement(workspaces)
    async with AsyncExitStack() as stack:
        for listener in listeners:
            await stack.enter_async_context(listener)
        if "sandbox" not in host.possible:
            with pytest.raises(CannotConfine, match="sandbox"):
                await run(host, workspaces, script, sandbox=True)
            return
        _, walled = await run(
            host, workspaces, f"{script}; find / -xdev -path /usr -prune -o -type s -print", sandbox=True
        )
        # Not the whole host: that takes seconds.
        _, free = await run(host, workspaces, f"{script}; find {place} -xdev -type s")

    assert [line for line in walled.splitlines() if "No such file" not in line] == []
    assert free.count("the secret of") == len(files)
    assert free.count("reached") == len(sockets)
    assert set(map(str, sockets)) <= set(free.splitlines())


@pytest.mark.parametrize("run_as", [None, OTHER_USER])
async def test_the_sandbox_shows_what_the_host_names_but_nothing_of_the_agent(
    workspaces: Path, run_as: str | None
) -> None:
    shared = ANYWHERE / f"chiffon-shared-{uuid4()}"
    tools, data = shared / "tools", shared / "data"
    for folder in (tools, data):
        folder.mkdir(parents=True)
        folder.chmod(0o777)
    (tools / "tool").write_text("#!/bin/sh\necho the tool\n")
    (tools / "tool").chmod(0o755)
    (workspaces.parent / "credential").write_text("the credential")
    script = (
        f"{tools}/tool; touch {tools}/new 2>/dev/null || echo kept; echo 1 > {data}/new; "
        f"ls {workspaces.parent}; echo $HOME; cd ~; pwd"
    )
    try:
        host = await enforcement(workspaces, run_as=run_as, readable=[tools, workspaces.parent.parent], writable=[data])
        if "sandbox" not in host.possible:
            with pytest.raises(CannotConfine, match="sandbox"):
                await run(host, workspaces, script, sandbox=True)
            return
        _, output = await run(host, workspaces, script, sandbox=True)
        assert (data / "new").exists()
    finally:
        shutil.rmtree(shared)

    [tool, kept, work, home, there] = output.splitlines()
    assert (tool, kept, work) == ("the tool", "kept", "work")
    assert home == there
    assert Path(home).parent == workspaces


async def test_a_path_for_the_sandbox_that_is_not_there_or_is_the_agents_own_stops_the_start(workspaces: Path) -> None:
    with pytest.raises(ConfinementUnusable, match="sandbox_readable: /nowhere does not exist"):
        await enforcement(workspaces, readable=[Path("/nowhere")])
    with pytest.raises(ConfinementUnusable, match=r"sandbox_writable: .* belongs to the agent's own"):
        await enforcement(workspaces, writable=[workspaces])


async def test_a_sandbox_that_cannot_be_built_is_logged_with_the_reason(
    workspaces: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = workspaces / "bwrap"
    broken.write_text("#!/bin/sh\necho no permissions to create new namespace\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{workspaces}:{os.environ['PATH']}")

    host = await enforcement(workspaces)

    assert "sandbox" not in host.possible
    [record] = [record for record in caplog.records if record.message == "confinement.not_possible"]
    assert vars(record)["reason"] == "no permissions to create new namespace"


async def test_in_the_sandbox_a_program_is_asked_to_end_before_it_is_killed(workspaces: Path) -> None:
    host, stop = await enforcement(workspaces), StopSignal()
    if "sandbox" not in host.possible:
        with pytest.raises(CannotConfine, match="sandbox"):
            await run(host, workspaces, "true", sandbox=True)
        return
    script = "trap 'echo cleaned up; exit 0' TERM; touch ready; while :; do sleep 0.05; done"
    running = asyncio.create_task(run(host, workspaces, script, sandbox=True, stop=stop))
    await eventually(lambda: list(workspaces.glob("*/ready")))

    stop.order(StopReason.CANCELLED, grace=5.0)
    outcome, output = await running

    assert outcome.status is ResultStatus.CANCELLED
    assert "cleaned up" in output


AGENT = """
import asyncio, sys
from pathlib import Path
from typing import Any
sys.path.insert(0, sys.argv[3])
from tests.unit.agents.test_confinement import enforcement, run
async def main():
    workspaces = Path(sys.argv[1])
    host = await enforcement(workspaces)
    await run(host, workspaces, sys.argv[2], **({"sandbox": True} if "sandbox" in host.possible else {}))
asyncio.run(main())
"""


async def test_grandchildren_die_with_an_agent_that_is_killed(workspaces: Path) -> None:
    # Out of the group, and without the ids by which others would find it.
    script = "exec env -i setsid sleep 77.25" if shutil.which("bwrap") else "exec sleep 77.25"
    root = Path(__file__).parents[3]
    agent = subprocess.Popen([sys.executable, "-c", AGENT, str(workspaces), script, str(root)])
    try:
        await eventually(_sleepers, timeout=60)
        [sleeper, *_] = _sleepers()
    finally:
        os.kill(agent.pid, signal.SIGKILL)
        agent.wait()

    await eventually(lambda: (seen := look_at(sleeper)) is None or seen.state == "Z")


def _named(mark: str) -> list[int]:
    return [process.pid for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or ())]


def _sleepers() -> list[int]:
    return [
        process.pid for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", "77.25"]
    ]


async def test_settings_that_the_host_cannot_meet_stop_the_start(workspaces: Path, keepers: Keepers) -> None:
    with pytest.raises(ConfinementUnusable, match="has no user 'nobody-of-that-name'"):
        await enforcement(workspaces, run_as="nobody-of-that-name")
    with pytest.raises(ConfinementUnusable, match="own_user"):
        await probe(keepers, run_as=None, least=Confinement(own_user=True), workspaces=workspaces)


async def test_a_wall_that_cannot_be_built_leaves_nothing_started(
    workspaces: Path,
) -> None:
    # More groups than any kernel gives to a process.
    host = Enforcement(user=User("nobody", os.geteuid(), os.getegid(), tuple(range(100_000)), "/"))

    with pytest.raises(OSError, match="could not be shut in"):
        await run(host, workspaces, f"touch {workspaces}/started")

    assert not (workspaces / "started").exists()


def test_of_two_confinements_the_stricter_holds() -> None:
    host = Confinement(network_off=True, max_processes=1, max_cpu_seconds=9)

    both = host.with_also(Confinement(sandbox=True, max_processes=5, max_open_files=16))

    assert both == Confinement(network_off=True, sandbox=True, max_processes=1, max_cpu_seconds=9, max_open_files=16)
