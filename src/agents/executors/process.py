"""Have a program run by a keeper, follow its output, and leave nothing of it behind.

Output goes through pipes of our own, so that the end of the program is seen also while a descendant still holds them.
One deadline covers all of it, from the start to the last byte; a stop and a lost lease end the reading, too.
"""

import asyncio
import errno
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from agents.attempts.stopping import StopSignal
from agents.executors.base import ProcessStarted, WriteOutput
from agents.executors.enclosure import OPEN, Enclosure
from agents.executors.process_sandbox import sandboxed
from agents.executors.pump import Pump
from agents.processes.cannot_start import CannotStart
from agents.processes.keepers import Keeper, Launch, NotBegun, Starter
from agents.processes.lookup import find, paths_of
from agents.processes.program import Step
from common.messages import Stream

# How long what the program has started may go on writing after its end, before it is killed.
DRAIN_SECONDS = 0.5
# How often a program that is being stopped is looked at again: the moment of the kill can be brought forward.
LOOK_SECONDS = 0.2


class Ending(StrEnum):
    EXITED = "exited"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    SILENT = "silent"


class Cut(StrEnum):
    """Why output has not been read to its end: a process still held it, or its taker was too slow for the time left."""

    HELD = "held"
    UNREAD = "unread"


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run: exactly this environment, `stdin` as its whole input, and the walls of `enclosure` around it.

    `max_silence_seconds`: it is stopped when it writes nothing for so long; None when it may be silent.
    `leaves_processes`: when it has ended by itself, what it started lives on. `workspace`: the directory that the
    sandbox shows it, where it may write; `cwd`, when None.
    """

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    stdin: bytes
    max_duration_seconds: float
    kill_grace_seconds: float
    max_silence_seconds: float | None = None
    enclosure: Enclosure = OPEN
    leaves_processes: bool = False
    workspace: Path | None = None

    @property
    def own_directory(self) -> Path:
        return self.cwd if self.workspace is None else self.workspace


@dataclass(frozen=True, slots=True)
class Finished:
    """`returncode` is negative for the signal that ended the program; `exit_code` is what a shell would say, 128+n.

    `killed` is how many processes were still there after its end and had to be killed. `cut`: why its output has not
    been read to its end; None when it has.
    """

    ending: Ending
    returncode: int
    killed: int = 0
    cut: Cut | None = None

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


async def run_process(
    keepers: Starter,
    command: Command,
    *,
    write: WriteOutput,
    stop: StopSignal,
    started: ProcessStarted | None = None,
) -> Finished:
    """Run a program to its end, or until `stop` is ordered or its time is over.

    Raises `CannotStart` for what is wrong with the program, and `OSError` for what is wrong with the host.
    `started` is told its keeper.
    """
    over_at = asyncio.get_running_loop().time() + command.max_duration_seconds
    with ExitStack() as files:
        pumps = [Pump.open(stream, write, files) for stream in Stream]
        keeper = await _start(keepers, command, pumps)
        files.callback(keeper.close)  # also when this task is cancelled: nothing survives
        for pump in pumps:
            pump.close_writing_end()
        if started is not None:
            started(keeper)
        try:
            ending = await _first_end(keeper.ended, pumps, stop, command, over_at)
            if ending is not Ending.EXITED:
                await _terminate(keeper, pumps, stop, command.kill_grace_seconds)
            is_left = command.leaves_processes and ending is Ending.EXITED
            cut = await _finish_output(keeper, pumps, stop, over_at=over_at, is_left=is_left)
            return Finished(ending, keeper.ended.result(), keeper.clean.result(), cut)
        finally:
            for pump in pumps:
                pump.task.cancel()
            await asyncio.gather(*(pump.task for pump in pumps), return_exceptions=True)


async def _start(keepers: Starter, command: Command, pumps: Sequence[Pump]) -> Keeper:
    outputs = [pump.writing_end for pump in pumps]
    enclosure = command.enclosure
    paths, argv, cwd = paths_of(command.argv[0]), list(command.argv), command.cwd
    if enclosure.is_sandboxed:
        # Bubblewrap would look a name up in the PATH of the work.
        program = [_first_program(command, paths), *argv[1:]]
        argv = sandboxed(program, command.own_directory, enclosure, cwd=cwd)
        paths, cwd = argv[:1], command.own_directory
    user = enclosure.user
    launch = Launch(
        paths=paths,
        argv=argv,
        env=command.env,
        cwd=str(cwd),
        limits=enclosure.limits,
        user=None if user is None else (user.groups, user.gid, user.uid),
        network_off=enclosure.confinement.network_off and not enclosure.is_sandboxed,
        sandboxed=enclosure.is_sandboxed,
        may_leave=command.leaves_processes,
    )
    with _input_file(command) as stdin:
        try:
            return await keepers.start(launch, [stdin.fileno(), *outputs])
        except NotBegun as failure:
            error = OSError(failure.errno, os.strerror(failure.errno))
            if failure.step is Step.SHUT_IN:
                # A wall could not be built, so nothing was started.
                raise OSError(errno.EAGAIN, f"the program could not be shut in as demanded: {error.strerror}") from None
            if failure.step is Step.FORK or is_of_the_host(error):
                raise error from None
            raise CannotStart(argv[0], launch.paths, command.cwd, error) from None


def _first_program(command: Command, paths: Sequence[str]) -> str:
    """Return a path as it was given, or where a name leads; raises `CannotStart`."""
    program = command.argv[0]
    found = program if "/" in program else find(program)
    if found is None:
        raise CannotStart(program, paths, command.cwd, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
    return found


def _input_file(command: Command) -> IO[bytes]:
    """A file and not a pipe: a program that never reads its input cannot block anybody."""
    if not command.stdin:
        return Path(os.devnull).open("rb")
    file = tempfile.TemporaryFile(dir=command.own_directory)  # noqa: SIM115 - the caller closes it
    file.write(command.stdin)
    file.seek(0)
    return file


async def _first_end(
    ended: asyncio.Future[int], pumps: Sequence[Pump], stop: StopSignal, command: Command, over_at: float
) -> Ending:
    now = asyncio.get_running_loop().time
    began = now()
    ordered = asyncio.create_task(stop.wait(), name="stop")
    try:
        while not ended.done() and stop.reason is None:
            silent_at = _silent_at(pumps, command, began)
            if now() >= over_at:
                return Ending.TIMED_OUT
            if now() >= silent_at:
                return Ending.SILENT
            left = min(over_at, silent_at) - now()
            waited: set[asyncio.Future[Any]] = {ended, ordered}
            await asyncio.wait(waited, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ordered.cancel()
    return Ending.EXITED if ended.done() else Ending.STOPPED


def _silent_at(pumps: Sequence[Pump], command: Command, began: float) -> float:
    """When the program will have been silent for too long, if it writes nothing more."""
    if command.max_silence_seconds is None:
        return math.inf
    return max(began, *(pump.heard_at for pump in pumps)) + command.max_silence_seconds


async def _terminate(keeper: Keeper, pumps: Sequence[Pump], stop: StopSignal, grace_seconds: float) -> None:
    """SIGTERM; SIGKILL when the program still runs, or its pipes are still held, after the grace."""
    now = asyncio.get_running_loop().time
    # An ordered stop says itself when to kill; a program whose time is over has the grace.
    kill_at = now() + grace_seconds if stop.reason is None else stop.kill_at
    keeper.terminate()
    alive: set[asyncio.Future[Any]] = {keeper.ended, *(pump.task for pump in pumps)}
    while alive and (left := min(kill_at, stop.kill_at) - now()) > 0:
        _, alive = await asyncio.wait(alive, timeout=min(left, LOOK_SECONDS))
        if keeper.ended.done() and all(pump.task.done() or pump.is_blocked for pump in pumps):
            break  # it has ended; what the pipes still hold is read afterwards
    await keeper.kill()


async def _finish_output(
    keeper: Keeper, pumps: Sequence[Pump], stop: StopSignal, *, over_at: float, is_left: bool
) -> Cut | None:
    """Read what there is to its end, and kill what still holds it after a moment; return why output was cut, if so."""
    now = asyncio.get_running_loop().time
    tasks = {pump.task for pump in pumps}
    until = now() + DRAIN_SECONDS
    while not keeper.clean.done() and (reading := _undone(tasks)) and (left := _left(until, stop)) > 0:
        waited: set[asyncio.Future[Any]] = {*reading, keeper.clean}
        await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
    is_held = any(pump.is_held for pump in pumps)
    if is_left:
        await keeper.leave()
    else:
        await keeper.kill()
    for pump in pumps:
        pump.finish()
    # Nothing writes any more. What the pipes hold is kept as long as the attempt may take, and for a moment at least.
    until = max(over_at, now() + DRAIN_SECONDS)
    at_least = now() + DRAIN_SECONDS
    while (reading := _undone(tasks)) and (left := max(_left(until, stop), at_least - now())) > 0:
        await asyncio.wait(reading, timeout=min(left, LOOK_SECONDS))
    for pump in pumps:
        if pump.task.done():
            pump.task.result()
    if _undone(tasks):
        return Cut.UNREAD
    return Cut.HELD if is_held else None


def _undone(tasks: Iterable[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    return {task for task in tasks if not task.done()}


def _left(until: float, stop: StopSignal) -> float:
    return min(until, stop.kill_at) - asyncio.get_running_loop().time()
