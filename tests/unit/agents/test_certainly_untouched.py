"""Work goes back untouched only when it is certain that nothing of it ran; all else counts as an attempt."""

import asyncio
import errno
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from agents.executors.base import ExecutionContext, Outcome
from agents.executors.process import run_process
from agents.processes.keepers import Keepers, Launch
from agents.processes.programs import Programs
from common.errors import ErrorCode
from common.messages import ResultStatus
from tests.unit.agents.faulty_keepers import break_keepers
from tests.unit.agents.test_process import is_gone, sh
from tests.unit.agents.test_runner import make_attempt, run

CANNOT_FORK_A_KEEPER = """
def fork():
    raise BlockingIOError(11, "no room")
os.fork = fork
"""
ENDS_BEFORE_IT_READS_THE_LAUNCH = "keeper._launch = lambda channel: os._exit(1)"
CANNOT_FORK_THE_PROGRAM = """
start = keeper.start
def cannot(launch, files):
    os.fork = fork
    return start(launch, files)
def fork():
    raise BlockingIOError(11, "no room")
keeper.start = cannot
"""
CANNOT_BUILD_A_WALL = """
def shut_in(launch, keeper):
    raise PermissionError(1, "no")
program._shut_in = shut_in
"""
CANNOT_EXECUTE = """
def execute(launch):
    raise OSError(12, "no memory")
program._execute = execute
"""
AFTER_THE_START = """
start = keeper.start
def started(launch, files):
    pid = start(launch, files)
    while not os.path.exists("/proc/%d/cwd/ran" % pid):
        pass
    os.kill(os.getpid(), signal.{number})
    return pid
keeper.start = started
"""


def cmdline_of(process: psutil.Process) -> str:
    """Return the command line of a process; "" for one that has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@pytest.mark.parametrize(
    ("fault", "has_run", "counts"),
    [
        pytest.param(CANNOT_FORK_A_KEEPER, False, False, id="no keeper"),
        pytest.param(ENDS_BEFORE_IT_READS_THE_LAUNCH, False, True, id="a keeper that is lost with the launch"),
        pytest.param(CANNOT_FORK_THE_PROGRAM, False, False, id="no fork"),
        pytest.param(CANNOT_BUILD_A_WALL, False, False, id="no wall"),
        pytest.param(CANNOT_EXECUTE, False, False, id="no memory for the program"),
        pytest.param(AFTER_THE_START.format(number="SIGSTOP"), True, True, id="a keeper that is stopped"),
        pytest.param(AFTER_THE_START.format(number="SIGKILL"), True, True, id="a keeper that is killed"),
    ],
)
async def test_an_attempt_counts_unless_its_keeper_cannot_have_started_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, has_run: bool, counts: bool
) -> None:
    monkeypatch.setattr("agents.processes.keepers.KEEPER_SECONDS", 2.0)
    break_keepers(monkeypatch, fault)
    left: list[str] = []

    async def start(context: ExecutionContext) -> Outcome:
        try:
            await run_process(
                context.keepers,
                sh("touch ran; sleep 600 & wait", context.workspace),
                write=context.write,
                stop=context.stop,
            )
        finally:
            assert (context.workspace / "ran").exists() is has_run
            left.extend(cmdline_of(process) for process in psutil.Process().children(recursive=True))
        raise AssertionError("it has not begun")

    result = await run(make_attempt(), tmp_path / "work", start)

    assert (result.status, result.error_code) == (ResultStatus.FAILED, ErrorCode.RESOURCE_LIMIT)
    assert (result.started, result.retryable) == (counts, True)
    # The servers of other tests are children of this process, too.
    assert not [command for command in left if "touch ran" in command or "sleep 600" in command]


async def test_a_disk_that_is_full_before_a_keeper_is_told_leaves_the_work_untouched(tmp_path: Path) -> None:
    async def start(context: ExecutionContext) -> Outcome:
        raise OSError(errno.ENOSPC, "No space left on device")

    result = await run(make_attempt(), tmp_path / "work", start)

    assert not result.started


async def test_an_attempt_counts_when_its_second_program_cannot_start(tmp_path: Path) -> None:
    async def start(context: ExecutionContext) -> Outcome:
        await run_process(context.keepers, sh("true", context.workspace), write=context.write, stop=context.stop)
        raise OSError(errno.ENOSPC, "No space left on device")

    result = await run(make_attempt(), tmp_path / "work", start)

    assert result.started


@pytest.fixture
def nothing() -> Iterator[list[int]]:
    """The three files of a program that reads and writes nothing."""
    with Path(os.devnull).open("r+b") as file:
        yield [file.fileno()] * 3


def make_order(folder: Path) -> Launch:
    return Launch(["/bin/sh"], ["/bin/sh", "-c", "touch ran; exec sleep 600"], {"PATH": "/usr/bin:/bin"}, str(folder))


async def test_a_program_is_kept_when_the_agent_was_paused_while_its_keeper_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keepers: Keepers, nothing: list[int]
) -> None:
    monkeypatch.setattr("agents.processes.keepers.KEEPER_SECONDS", 2.0)
    loop = asyncio.get_running_loop()

    def pause() -> None:
        until = time.monotonic() + 3.0
        while time.monotonic() < until or not (tmp_path / "ran").exists():
            os.sched_yield()

    def telling() -> None:
        loop.call_soon(pause)

    keeper = await keepers.start(make_order(tmp_path), nothing, telling=telling)

    assert not is_gone(keeper.pid)
    await keeper.kill()
    keeper.close()


async def test_a_program_dies_with_its_lease_when_the_agent_is_paused_right_after_its_order(
    tmp_path: Path, keepers: Keepers, nothing: list[int]
) -> None:
    deadline = time.monotonic() + 1.0
    programs = Programs(keepers, kill_at=lambda: deadline)

    with closing(await programs.start(make_order(tmp_path), nothing)) as keeper:  # and the agent sends no deadline
        await asyncio.wait({keeper.clean}, timeout=10)

        assert keeper.clean.done()
        assert time.monotonic() >= deadline
        assert is_gone(keeper.pid)
