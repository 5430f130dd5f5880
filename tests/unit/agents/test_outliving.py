"""Nothing of an attempt lives on after its end, and one deadline covers it from the start to the last byte."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import uvloop

from agents.attempts.stopping import StopReason, StopSignal
from agents.executors.process import DRAIN_SECONDS, Cut, Ending, Finished, run_process
from agents.processes.keepers import Keeper, Keepers
from common.messages import ResultStatus, Stream
from tests import stress_attempts
from tests.eventually import eventually
from tests.fuzz.bounds import MORE
from tests.unit.agents.test_process import Output, is_gone, sh, stop_when
from tests.unit.agents.test_shell import run

# Each leaves its id in the workspace, and holds no pipe.
ESCAPED = "setsid -f sh -c 'echo $$ > escaped; exec sleep 431' > /dev/null 2>&1; "
CLEARED = "setsid -f env -i /bin/sh -c 'echo $$ > cleared; exec /bin/sleep 432' > /dev/null 2>&1; "
BOTH = ESCAPED + CLEARED + "until [ -s escaped ] && [ -s cleared ]; do sleep 0.02; done; echo ready; "
# A process that is always another one: each forks the next and ends. The second one leaves a file.
CHAIN = (
    'perl -MPOSIX -e \'exit if fork; open my $file, ">", "chained-$$"; while (1) { exit if fork; setsid; }\' '
    "chain-of-forks > /dev/null 2>&1 & "
)


@pytest.fixture
def output() -> Output:
    return Output()


async def never(_stream: Stream, _data: bytes) -> None:
    """Take no output, as while the broker is away."""
    await asyncio.get_running_loop().create_future()


def pid_in(path: Path) -> int:
    return int(path.read_text())


def links() -> int:
    """Count the processes of the chain."""
    count = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            count += "chain-of-forks" in process.cmdline()
    return count


async def test_a_daemon_without_a_session_or_an_environment_is_dead_when_its_program_has_ended(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    finished = await run_process(keepers, sh(BOTH, tmp_path), write=output, stop=StopSignal())

    assert finished == Finished(Ending.EXITED, 0, killed=2)
    assert all(is_gone(pid_in(tmp_path / name)) for name in ("escaped", "cleared"))


async def test_a_daemon_without_a_session_or_an_environment_is_dead_when_its_program_was_cancelled(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    stop = StopSignal()
    finished, _ = await asyncio.gather(
        run_process(keepers, sh(f"{BOTH}sleep 100", tmp_path), write=output, stop=stop),
        stop_when(lambda: b"ready" in output.stdout, stop, grace=0.5),
    )

    assert finished.ending is Ending.STOPPED
    assert all(is_gone(pid_in(tmp_path / name)) for name in ("escaped", "cleared"))


async def test_programs_that_fork_faster_than_one_can_look_are_dead_after_a_cancel(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    stop = StopSignal()
    async with asyncio.TaskGroup() as group:
        group.create_task(run_process(keepers, sh(f"{CHAIN * 4} sleep 100", tmp_path), write=output, stop=stop))
        group.create_task(stop_when(lambda: len(list(tmp_path.glob("chained-*"))) == 4, stop, grace=0.2))

    assert links() == 0


@pytest.mark.parametrize("script", ["while :; do echo more; done", "sleep 600"])
async def test_what_holds_the_pipes_after_the_end_is_killed_and_the_output_said_to_be_cut(
    tmp_path: Path, script: str
) -> None:
    began = time.monotonic()
    outcome, _ = await run(tmp_path, argv=["/bin/sh", "-c", f"setsid -f sh -c '{script}'"])

    assert (outcome.status, outcome.exit_code) == (ResultStatus.COMPLETED, 0)
    assert "output was cut" in str(outcome.error_message)
    assert "were killed" in str(outcome.error_message)
    assert time.monotonic() - began < 10.0


async def test_a_program_that_leaves_nothing_behind_has_no_cut_output(tmp_path: Path) -> None:
    outcome, output = await run(tmp_path, script="head -c 300000 /dev/zero | tr '\\0' x & wait")

    assert (outcome.status, outcome.error_message) == (ResultStatus.COMPLETED, None)
    assert len(output) == 300_000


@pytest.mark.parametrize("leaves", [False, True])
async def test_output_that_is_taken_late_and_held_by_nothing_is_not_cut(
    tmp_path: Path, keepers: Keepers, end_daemon: Callable[[int], None], leaves: bool
) -> None:
    gate, taken = asyncio.Event(), bytearray()

    async def take_late(_stream: Stream, data: bytes) -> None:
        await gate.wait()
        taken.extend(data)

    def open_later(keeper: Keeper) -> None:
        later = 2 * DRAIN_SECONDS
        keeper.ended.add_done_callback(lambda _: asyncio.get_running_loop().call_later(later, gate.set))

    command = sh(BOTH, tmp_path, leaves_processes=leaves)
    finished = await run_process(keepers, command, write=take_late, stop=StopSignal(), started=open_later)

    assert finished == Finished(Ending.EXITED, 0, killed=0 if leaves else 2)
    assert bytes(taken) == b"ready\n"
    for name in ("escaped", "cleared"):
        end_daemon(pid_in(tmp_path / name))


async def test_output_that_a_daemon_goes_on_holding_is_said_to_be_cut_because_of_that(
    tmp_path: Path, end_daemon: Callable[[int], None]
) -> None:
    script = "setsid -f sh -c 'echo $$ > escaped; exec sleep 431'; until [ -s escaped ]; do sleep 0.02; done"
    outcome, _ = await run(tmp_path, script=script, leaves_processes=True)

    assert outcome.status is ResultStatus.COMPLETED
    assert outcome.error_message == (
        "Its output was cut: another process still held it 0.5 s after its end, and was left running."
    )
    end_daemon(pid_in(tmp_path / "escaped"))


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.LEASE_LOST, StopReason.AGENT_STOPPING])
async def test_a_stop_ends_the_reading_of_output_that_nothing_takes(
    tmp_path: Path, keepers: Keepers, reason: StopReason
) -> None:
    stop, told = StopSignal(), list[Keeper]()
    running = asyncio.create_task(
        run_process(keepers, sh("echo more", tmp_path), write=never, stop=stop, started=told.append)
    )
    await eventually(lambda: told and told[0].ended.done())

    stop.order(reason, grace=0.1)

    finished = await asyncio.wait_for(running, 10)
    assert finished == Finished(Ending.EXITED, 0, cut=Cut.UNREAD)


async def test_the_longest_duration_covers_the_reading_of_the_output(tmp_path: Path, keepers: Keepers) -> None:
    command = sh("echo more", tmp_path, max_duration_seconds=1.0)

    finished = await asyncio.wait_for(run_process(keepers, command, write=never, stop=StopSignal()), 10)

    assert finished == Finished(Ending.EXITED, 0, cut=Cut.UNREAD)


async def test_silence_is_bounded_also_when_a_descendant_is_silent_after_the_end(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    command = sh("sleep 600 &", tmp_path, max_silence_seconds=0.2)

    finished = await asyncio.wait_for(run_process(keepers, command, write=output, stop=StopSignal()), 10)

    assert finished == Finished(Ending.EXITED, 0, killed=1, cut=Cut.HELD)


def test_a_program_has_three_files_and_no_more(tmp_path: Path, keepers: Keepers) -> None:
    output = Output()
    # As in production, and with a file of the agent that could be inherited.
    inheritable = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    try:
        uvloop.run(
            run_process(keepers, sh("exec ls /proc/self/fd", tmp_path, stdin=b"x"), write=output, stop=StopSignal())
        )
    finally:
        os.close(inheritable)

    # The fourth is the directory that it lists.
    assert output.stdout.split() == [b"0", b"1", b"2", b"3"]


async def test_signals_that_python_and_the_keepers_ignore_reach_a_program(
    tmp_path: Path, output: Output, keepers: Keepers
) -> None:
    await run_process(keepers, sh("grep SigIgn /proc/self/status", tmp_path), write=output, stop=StopSignal())

    # The C library's own two signals are no program's; posix_spawn, with which make starts pytest, leaves them ignored.
    ignored = int(output.stdout.split()[1], 16)
    assert [number for number in signal.valid_signals() if ignored & 1 << (number - 1)] == []


@pytest.mark.parametrize("is_asked", [False, True])
async def test_a_daemon_lives_on_only_when_that_is_asked_for(
    tmp_path: Path, is_asked: bool, end_daemon: Callable[[int], None]
) -> None:
    outcome, _ = await run(tmp_path, script=BOTH, leaves_processes=is_asked)

    assert outcome.status is ResultStatus.COMPLETED
    daemons = [pid_in(tmp_path / name) for name in ("escaped", "cleared")]
    assert [is_gone(pid) is not is_asked for pid in daemons] == [True, True]
    for pid in daemons:
        end_daemon(pid)


async def test_a_program_has_ended_well_also_when_its_keeper_is_stopped_afterwards(
    tmp_path: Path, output: Output, keepers: Keepers, end_daemon: Callable[[int], None]
) -> None:
    def stop_at_the_end(keeper: Keeper) -> None:
        keeper.ended.add_done_callback(lambda _: os.kill(keeper.keeper_pid, signal.SIGSTOP))

    command = sh(BOTH, tmp_path, leaves_processes=True)
    finished = await run_process(keepers, command, write=output, stop=StopSignal(), started=stop_at_the_end)

    assert finished == Finished(Ending.EXITED, 0)
    for name in ("escaped", "cleared"):
        assert not is_gone(pid_in(tmp_path / name))
        end_daemon(pid_in(tmp_path / name))


async def test_what_may_leave_a_daemon_leaves_none_when_it_runs_for_too_long(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, script=f"{BOTH}sleep 100", leaves_processes=True, max_duration_seconds=2)

    assert outcome.status is ResultStatus.FAILED
    assert all(is_gone(pid_in(tmp_path / name)) for name in ("escaped", "cleared"))


@pytest.fixture
def end_daemon() -> Callable[[int], None]:
    """End a daemon that was left on purpose."""

    def end(pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    return end


async def test_of_programs_of_every_kind_of_escape_nothing_is_left_and_every_slot_is_free(tmp_path: Path) -> None:
    assert len(stress_attempts.KINDS) >= 8

    # More than there are slots; `make stress` runs thousands.
    stress = await stress_attempts.run(2 * len(stress_attempts.KINDS) * MORE, tmp_path)

    assert stress.has_held, stress.table()
