"""Start a program, follow its output, and leave nothing of it behind: the only place that starts processes.

A program gets a process group of its own, so that what it starts can be stopped with it. Output goes through pipes of
our own rather than asyncio's, so that the end of the program is seen also while a grandchild still holds them.
"""

import asyncio
import errno
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from subprocess import SubprocessError
from typing import IO

from agents.executors.base import ProcessStarted, WriteOutput
from agents.executors.enclosure import OPEN, Enclosure
from agents.executors.process_group import ProcessGroup
from agents.executors.process_sandbox import sandboxed
from agents.executors.process_start import entering
from agents.executors.pump import Pump
from agents.stopping import StopSignal
from common.messages import Stream

# How long a grandchild may go on writing after the program has ended, before the group is killed.
DRAIN_SECONDS = 0.5
# How often a program that is being stopped is looked at again: the moment of the kill can be brought forward.
LOOK_SECONDS = 0.2


class Ending(StrEnum):
    EXITED = "exited"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run: exactly this environment, `stdin` as its whole input, and the walls of `enclosure` around it.

    `max_silence_seconds`: it is stopped when it writes nothing for so long; None when it may be silent.
    """

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    stdin: bytes
    max_duration_seconds: float
    kill_grace_seconds: float
    max_silence_seconds: float | None = None
    enclosure: Enclosure = OPEN


@dataclass(frozen=True, slots=True)
class Finished:
    """`returncode` is negative for the signal that ended the program; `exit_code` is what a shell would say, 128+n."""

    ending: Ending
    returncode: int

    @property
    def exit_code(self) -> int:
        return self.returncode if self.returncode >= 0 else 128 - self.returncode


# What the host lacks just now, and not what the program is: another attempt, or another host, may fare better.
HOST_ERRORS = frozenset(
    (
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
    )
)


def is_of_the_host(error: OSError) -> bool:
    """Whether a program could not be started because of its host: no memory, disk, files or processes left."""
    return error.errno in HOST_ERRORS


class CannotStart(Exception):
    """The program does not exist or cannot be run; `exit_code` is the one that a shell gives for that."""

    def __init__(self, program: str, error: OSError) -> None:
        if error.errno == errno.ENOENT:
            super().__init__(f"The program {program!r} was not found.")
            self.exit_code = 127
        else:
            super().__init__(f"The program {program!r} cannot be started: {error.strerror or error}.")
            self.exit_code = 126


async def run_process(
    command: Command, *, write: WriteOutput, stop: StopSignal, started: ProcessStarted | None = None
) -> Finished:
    """Run a program to its end, or until `stop` is ordered or its time is over.

    Raises `CannotStart` for what is wrong with the program, and `OSError` for what is wrong with the host.
    `started` is told the id of its process group.
    """
    with ExitStack() as files:
        pumps = [Pump.open(stream, write, files) for stream in Stream]
        process = await _start(command, pumps)
        for pump in pumps:
            pump.close_writing_end()
        group = ProcessGroup(process.pid, has_keeper=command.enclosure.is_sandboxed)
        if started is not None:
            started(process.pid)
        ended = asyncio.create_task(process.wait(), name="process")
        try:
            ending = await _first_end(ended, pumps, stop, command)
            if ending is not Ending.EXITED:
                await _terminate(group, ended, pumps, stop, command.kill_grace_seconds)
            await _finish_output(group, ended, pumps)
            return Finished(ending, await ended)
        finally:
            # Also when this task is cancelled: nothing of the group survives.
            group.end()
            for task in (ended, *(pump.task for pump in pumps)):
                task.cancel()
            await asyncio.gather(ended, *(pump.task for pump in pumps), return_exceptions=True)


async def _start(command: Command, pumps: Sequence[Pump]) -> asyncio.subprocess.Process:
    stdout, stderr = (pump.writing_end for pump in pumps)
    try:
        with _input_file(command) as stdin:
            return await asyncio.create_subprocess_exec(
                *sandboxed(command.argv, command.cwd, command.enclosure),
                cwd=command.cwd,
                env=dict(command.env),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=entering(command.enclosure),
            )
    except SubprocessError as error:
        # A wall could not be built, so nothing was started.
        raise OSError(errno.EAGAIN, "the program could not be shut in as demanded") from error
    except OSError as error:
        if is_of_the_host(error):
            raise
        raise CannotStart(command.argv[0], error) from None


def _input_file(command: Command) -> IO[bytes]:
    """A file and not a pipe: a program that never reads its input cannot block anybody."""
    if not command.stdin:
        return Path(os.devnull).open("rb")
    file = tempfile.TemporaryFile(dir=command.cwd)  # noqa: SIM115 - the caller closes it
    file.write(command.stdin)
    file.seek(0)
    return file


async def _first_end(ended: asyncio.Task[int], pumps: Sequence[Pump], stop: StopSignal, command: Command) -> Ending:
    now = asyncio.get_running_loop().time
    over_at = now() + command.max_duration_seconds
    ordered = asyncio.create_task(stop.wait(), name="stop")
    try:
        while not ended.done() and stop.reason is None:
            silent_at = _silent_at(pumps, command)
            if now() >= over_at:
                return Ending.TIMED_OUT
            if now() >= silent_at:
                return Ending.SILENT
            left = min(over_at, silent_at) - now()
            await asyncio.wait({ended, ordered}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ordered.cancel()
    return Ending.EXITED if ended.done() else Ending.STOPPED


def _silent_at(pumps: Sequence[Pump], command: Command) -> float:
    """When the program will have been silent for too long, if it writes nothing more."""
    if command.max_silence_seconds is None:
        return math.inf
    return max(pump.heard_at for pump in pumps) + command.max_silence_seconds


async def _terminate(
    group: ProcessGroup, ended: asyncio.Task[int], pumps: Sequence[Pump], stop: StopSignal, grace_seconds: float
) -> None:
    """SIGTERM to the group; SIGKILL when it still runs, or still holds the pipes, after the grace."""
    now = asyncio.get_running_loop().time
    # An ordered stop says itself when to kill; a program whose time is over has the grace.
    kill_at = now() + grace_seconds if stop.reason is None else stop.kill_at
    group.terminate()
    alive: set[asyncio.Task[int] | asyncio.Task[None]] = {ended, *(pump.task for pump in pumps)}
    while alive and (left := min(kill_at, stop.kill_at) - now()) > 0:
        _, alive = await asyncio.wait(alive, timeout=min(left, LOOK_SECONDS))
        if ended.done() and all(pump.task.done() or pump.is_blocked for pump in pumps):
            break  # it has ended; what the pipes still hold is read afterwards
    group.kill()
    await asyncio.wait({ended})


async def _finish_output(group: ProcessGroup, ended: asyncio.Task[int], pumps: Sequence[Pump]) -> None:
    """Read the pipes to their end, killing those of the group that hold them open after the program has ended."""
    await asyncio.wait({ended})
    tasks = {pump.task for pump in pumps}
    await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
    group.end()
    # What is in the pipes is kept, however long it takes to hand on; only whoever left the group and holds a pipe
    # without writing is not waited for.
    while any(not pump.task.done() for pump in pumps):
        await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
        if all(pump.task.done() or pump.is_silent(DRAIN_SECONDS) for pump in pumps):
            break
    for pump in pumps:
        if pump.task.done():
            pump.task.result()
