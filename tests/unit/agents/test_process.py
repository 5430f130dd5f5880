"""A program is followed to its end and leaves nothing behind."""

import asyncio
import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest
import uvloop

from agents.attempts.stopping import StopReason, StopSignal
from agents.executors.enclosure import Enclosure
from agents.executors.process import Command, Cut, Ending, Finished, is_of_the_host, run_process
from agents.processes.cannot_start import CannotStart
from agents.processes.keepers import Keeper, Keepers
from common.confinement import Confinement
from common.messages import Stream
from tests.eventually import eventually

# Runs a program that outlasts it, and says its id.
KILLED_AGENT = """
import sys, uvloop
from pathlib import Path
from agents.executors.process import Command, run_process
from agents.processes.keepers import Keepers
from agents.attempts.stopping import StopSignal

async def write(stream, data):
    pass

def started(keeper):
    print(keeper.pid, flush=True)

argv = ["/bin/sleep", "60"]
command = Command(argv, Path(sys.argv[1]), {}, b"", max_duration_seconds=60.0, kill_grace_seconds=1.0)
uvloop.run(run_process(Keepers(), command, write=write, stop=StopSignal(), started=started))
"""


class Output:
    def __init__(self) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()

    async def __call__(self, stream: Stream, data: bytes) -> None:
        (self.stdout if stream is Stream.STDOUT else self.stderr).extend(data)


@pytest.fixture
def output() -> Output:
    return Output()


def sh(script: str, cwd: Path, **changes: object) -> Command:
    values: dict[str, object] = {
        "argv": ["/bin/sh", "-c", script],
        "cwd": cwd,
        "env": {"PATH": os.environ["PATH"]},
        "stdin": b"",
        "max_duration_seconds": 30.0,
        "kill_grace_seconds": 5.0,
    }
    return Command(**{**values, **changes})  # type: ignore[arg-type]


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie that nobody collected has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def stop_when(ready: Callable[[], bool], stop: StopSignal, *, grace: float) -> None:
    """Order the stop as soon as the program is ready, and also when it does not get ready."""
    try:
        await eventually(ready, timeout=30)
    finally:
        stop.order(StopReason.CANCELLED, grace=grace)


async def test_both_streams_and_the_exit_code_arrive(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    finished = await run_process(
        keepers, sh("echo out; echo err >&2; exit 3", tmp_path), write=output, stop=StopSignal()
    )

    assert finished == Finished(Ending.EXITED, 3)
    assert (bytes(output.stdout), bytes(output.stderr)) == (b"out\n", b"err\n")


async def test_binary_output_arrives_unchanged(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    (tmp_path / "data").write_bytes(bytes(range(256)) * 4096)

    await run_process(keepers, sh("cat data", tmp_path), write=output, stop=StopSignal())

    assert bytes(output.stdout) == bytes(range(256)) * 4096


async def test_standard_input_is_given_and_may_be_ignored(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    text = b"line\n" * 50_000

    await run_process(keepers, sh("wc -c", tmp_path, stdin=text), write=output, stop=StopSignal())
    ignored = await run_process(keepers, sh("exit 0", tmp_path, stdin=text), write=output, stop=StopSignal())

    assert int(output.stdout) == len(text)
    assert ignored.returncode == 0


async def test_a_program_sees_exactly_the_environment_that_it_is_given(
    tmp_path: Path, output: Output, monkeypatch: pytest.MonkeyPatch, keepers: Keepers
) -> None:
    monkeypatch.setenv("SECRET", "of the agent")

    await run_process(keepers, sh("", tmp_path, argv=["/usr/bin/env"], env={"A": "1"}), write=output, stop=StopSignal())

    assert bytes(output.stdout) == b"A=1\n"


async def test_a_program_gains_no_rights_by_what_it_starts(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    await run_process(keepers, sh("grep NoNewPrivs /proc/self/status", tmp_path), write=output, stop=StopSignal())

    assert output.stdout.split() == [b"NoNewPrivs:", b"1"]


async def test_a_program_cannot_raise_a_limit_that_it_was_given(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    walls = Enclosure(Confinement(max_open_files=20))

    await run_process(keepers, sh("ulimit -Sn; ulimit -Hn", tmp_path, enclosure=walls), write=output, stop=StopSignal())

    assert output.stdout.split() == [b"20", b"20"]


async def test_the_end_by_a_signal_is_told_as_a_shell_tells_it(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    finished = await run_process(keepers, sh("kill -KILL $$", tmp_path), write=output, stop=StopSignal())

    assert finished == Finished(Ending.EXITED, -9)
    assert finished.exit_code == 137


async def test_a_stop_ends_the_whole_group(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    stop = StopSignal()
    running = run_process(keepers, sh("sleep 60 & echo $!; echo $$; wait", tmp_path), write=output, stop=stop)

    finished, _ = await asyncio.gather(running, stop_when(lambda: output.stdout.count(b"\n") == 2, stop, grace=5.0))

    assert finished.ending is Ending.STOPPED
    for pid in map(int, output.stdout.split()):
        await eventually(partial(is_gone, pid))


async def test_what_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    stop = StopSignal()
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"

    finished, _ = await asyncio.gather(
        run_process(keepers, sh(script, tmp_path), write=output, stop=stop),
        stop_when(lambda: b"ready" in output.stdout, stop, grace=0.3),
    )

    assert (finished.ending, finished.returncode) == (Ending.STOPPED, -9)


async def test_a_later_order_can_bring_the_kill_nearer(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    stop = StopSignal()
    script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.1; done"
    running = asyncio.create_task(run_process(keepers, sh(script, tmp_path), write=output, stop=stop))
    await stop_when(lambda: b"ready" in output.stdout, stop, grace=3600)
    await eventually(lambda: b"asked" in output.stdout)

    stop.order(StopReason.LEASE_LOST, grace=0.1)

    assert (await asyncio.wait_for(running, 10)).returncode == -9
    assert stop.reason is StopReason.CANCELLED


async def test_a_grandchild_has_the_grace_to_clean_up(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    stop = StopSignal()
    child = "trap 'sleep 0.2; echo cleaned; exit 0' TERM; echo ready; while :; do sleep 0.05; done"

    await asyncio.gather(
        run_process(keepers, sh(f"({child}) & wait", tmp_path), write=output, stop=stop),
        stop_when(lambda: b"ready" in output.stdout, stop, grace=10.0),
    )

    assert bytes(output.stdout) == b"ready\ncleaned\n"


async def test_a_stopped_process_can_be_stopped_for_good(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    stop = StopSignal()

    finished, _ = await asyncio.gather(
        run_process(keepers, sh("echo ready; kill -STOP $$", tmp_path), write=output, stop=stop),
        stop_when(lambda: b"ready" in output.stdout, stop, grace=10.0),
    )

    assert finished == Finished(Ending.STOPPED, -15)


async def test_a_program_that_runs_too_long_is_stopped(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    finished = await run_process(
        keepers, sh("sleep 5", tmp_path, max_duration_seconds=0.2), write=output, stop=StopSignal()
    )

    assert finished == Finished(Ending.TIMED_OUT, -15)


async def test_a_grandchild_that_holds_the_pipe_does_not_outlive_the_program(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    finished = await asyncio.wait_for(
        run_process(keepers, sh("sleep 60 & echo $!", tmp_path), write=output, stop=StopSignal()), 10
    )

    assert finished == Finished(Ending.EXITED, 0, killed=1, cut=Cut.HELD)
    assert is_gone(int(output.stdout))


async def test_a_grandchild_that_left_the_group_dies_with_the_program(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    await asyncio.wait_for(
        run_process(
            keepers,
            sh("setsid sh -c 'echo $$; exec sleep 60' & wait $! & sleep 0.2", tmp_path),
            write=output,
            stop=StopSignal(),
        ),
        10,
    )

    assert is_gone(int(output.stdout))


async def test_output_is_complete_also_when_its_taker_is_slower_than_the_program(
    tmp_path: Path, keepers: Keepers
) -> None:
    taken = 0
    gate = asyncio.Event()

    async def take(stream: Stream, data: bytes) -> None:
        nonlocal taken
        await gate.wait()
        taken += len(data)

    running = asyncio.create_task(
        run_process(keepers, sh("head -c 3000000 /dev/zero", tmp_path), write=take, stop=StopSignal())
    )
    await asyncio.wait({running}, timeout=1.5)
    assert not running.done()
    gate.set()

    assert (await running).returncode == 0
    assert taken == 3_000_000


async def test_a_program_that_does_not_exist_is_said_to_be_missing(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    with pytest.raises(CannotStart, match="'no-such-program' was not found") as caught:
        await run_process(keepers, sh("", tmp_path, argv=["no-such-program"]), write=output, stop=StopSignal())

    assert caught.value.exit_code == 127


async def test_a_file_that_is_no_program_cannot_be_started(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    (tmp_path / "data").write_text("not a program")

    with pytest.raises(CannotStart, match="Permission denied") as caught:
        await run_process(keepers, sh("", tmp_path, argv=[str(tmp_path / "data")]), write=output, stop=StopSignal())

    assert caught.value.exit_code == 126


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EROFS])
def test_what_the_host_lacks_is_not_the_fault_of_the_program(number: int) -> None:
    assert is_of_the_host(OSError(number, os.strerror(number)))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.E2BIG, errno.ENOTDIR])
def test_what_is_wrong_with_the_program_is_not_the_fault_of_the_host(number: int) -> None:
    assert not is_of_the_host(OSError(number, os.strerror(number)))


async def test_a_host_without_free_descriptors_fails_as_the_host(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    await run_process(keepers, sh("echo", tmp_path), write=output, stop=StopSignal())  # what is loaded once, is loaded
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    failures = []
    for free in range(12):
        taken = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
        limit = next(count for count in range(4096) if count - len([fd for fd in taken if fd < count]) > free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            await run_process(keepers, sh("echo", tmp_path, stdin=b"x"), write=output, stop=StopSignal())
        except OSError as error:  # and no CannotStart
            failures.append(error.errno)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 0 < len(failures) < 12
    assert set(failures) == {errno.EMFILE}


async def test_a_program_may_open_as_many_files_as_its_agent_was_started_with(tmp_path: Path, output: Output) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Keepers(open_files=77) as keepers:
        await run_process(keepers, sh("ulimit -Sn; ulimit -Hn", tmp_path), write=output, stop=StopSignal())

    assert output.stdout.split() == [b"77", str(hard).encode()]


def test_a_process_raises_its_limit_of_files_once_and_remembers_what_it_was_started_with() -> None:
    told = (
        "import resource; from common.open_files import raise_open_files;"
        "print(raise_open_files(), raise_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    run = ("prlimit", "--nofile=100:400", sys.executable, "-c", told)
    source = str(Path(__file__).parents[3] / "src")

    shown = subprocess.run(run, env={**os.environ, "PYTHONPATH": source}, capture_output=True, check=True)

    assert shown.stdout.split() == [b"100", b"100", b"400", b"400"]


async def test_cancelling_the_task_kills_the_group(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    running = asyncio.create_task(
        run_process(keepers, sh("trap '' TERM; echo $$; sleep 60; sleep 60", tmp_path), write=output, stop=StopSignal())
    )
    await eventually(lambda: output.stdout.endswith(b"\n"))

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    await eventually(lambda: is_gone(int(output.stdout)))


async def test_no_file_stays_open(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    await run_process(keepers, sh("echo", tmp_path), write=output, stop=StopSignal())
    await asyncio.sleep(0)
    before = psutil.Process().num_fds()

    for _ in range(20):
        await run_process(keepers, sh("echo", tmp_path, stdin=b"x"), write=output, stop=StopSignal())

    await eventually(lambda: psutil.Process().num_fds() <= before)


def test_all_of_it_holds_on_uvloop_too(tmp_path: Path, keepers: Keepers) -> None:
    async def run() -> tuple[Finished, bytes]:
        output = Output()
        stop = StopSignal()
        finished, _ = await asyncio.gather(
            run_process(keepers, sh("cat; sleep 60 & wait", tmp_path, stdin=b"ready"), write=output, stop=stop),
            stop_when(lambda: b"ready" in output.stdout, stop, grace=5.0),
        )
        return finished, bytes(output.stdout)

    assert uvloop.run(run()) == (Finished(Ending.STOPPED, -15), b"ready")


async def test_a_program_that_writes_nothing_for_too_long_is_stopped(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    script = "for i in 1 2 3; do echo $i; sleep 0.1; done; sleep 5"

    finished = await run_process(
        keepers, sh(script, tmp_path, max_silence_seconds=0.6), write=output, stop=StopSignal()
    )

    assert finished == Finished(Ending.SILENT, -15)
    assert bytes(output.stdout) == b"1\n2\n3\n"


async def test_output_on_either_stream_breaks_the_silence(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    script = "for i in 1 2 3 4; do echo $i >&2; sleep 0.3; done"

    finished = await run_process(
        keepers, sh(script, tmp_path, max_silence_seconds=0.8), write=output, stop=StopSignal()
    )

    assert finished == Finished(Ending.EXITED, 0)


async def test_a_program_is_not_silent_while_nobody_takes_what_it_writes(tmp_path: Path, keepers: Keepers) -> None:
    gate = asyncio.Event()

    async def take(stream: Stream, data: bytes) -> None:
        await gate.wait()

    command = sh("head -c 3000000 /dev/zero", tmp_path, max_silence_seconds=0.8)
    running = asyncio.create_task(run_process(keepers, command, write=take, stop=StopSignal()))
    await asyncio.wait({running}, timeout=1.6)
    gate.set()

    assert await running == Finished(Ending.EXITED, 0)


async def test_the_keeper_of_a_program_is_told_as_soon_as_it_runs(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    told: list[Keeper] = []

    await run_process(keepers, sh("echo $$", tmp_path), write=output, stop=StopSignal(), started=told.append)

    assert [keeper.pid for keeper in told] == [int(output.stdout)]


async def test_a_program_dies_with_the_agent_that_is_killed(tmp_path: Path) -> None:
    agent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED_AGENT,
        str(tmp_path),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")},
        stdout=asyncio.subprocess.PIPE,
    )
    assert agent.stdout is not None
    program = int(await agent.stdout.readline())
    assert not is_gone(program)

    agent.kill()
    await agent.wait()

    await eventually(lambda: is_gone(program))


def test_descriptors_of_other_files_are_left_alone(tmp_path: Path, output: Output, keepers: Keepers) -> None:
    """A pipe that is closed twice closes a file of somebody else, who got its number in between."""
    stop = threading.Event()
    broken: list[OSError] = []

    def open_files(path: Path) -> None:
        while not stop.is_set():
            try:
                with path.open("wb") as file:
                    file.write(b"x")
                    os.fsync(file.fileno())
            except OSError as error:
                broken.append(error)

    async def run_many() -> None:
        for _ in range(20):
            command = sh("echo x", tmp_path)
            await asyncio.gather(*(run_process(keepers, command, write=output, stop=StopSignal()) for _ in range(4)))

    threads = [threading.Thread(target=open_files, args=(tmp_path / str(number),)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        uvloop.run(run_many())
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert broken == []
    assert output.stdout == b"x\n" * 80
