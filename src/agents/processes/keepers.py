"""The agent's side of its keepers: have a program started by one, tell it what to do, hear what becomes of it.

See `agents.processes.guardian`, which forks them, and `agents.processes.keeper`, which is one.
"""

import asyncio
import errno
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from agents.processes.guardian import KEEP, MAY_LEAVE
from agents.processes.keeper import HEADER_BYTES
from agents.processes.program import Step
from agents.processes.table import ticks_of
from common.private import WORK_UMASK

log = logging.getLogger(__name__)

# Isolated and without site-packages, so that it starts at once; it finds this package where this file is.
PROGRAM = "import sys; sys.path.append(sys.argv[1]); from agents.processes.guardian import main; main()"
COMMAND = (sys.executable, "-I", "-S", "-c", PROGRAM, str(Path(__file__).parent.parent.parent))
# How long a keeper may take to begin, and to clean up, before it is taken for lost; what it kills may wait for a disk.
KEEPER_SECONDS = 10.0
# How long the guardian may take to end once the agent has no more work for it.
END_SECONDS = 2.0
READ_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Launch:
    """A program to start: the first of `paths` that exists, with exactly this environment and within these walls.

    `limits` are pairs for `setrlimit`; `user` is (groups, gid, uid). `may_leave`: it may be told to leave running what
    the program has started. `kill_at`: the first deadline, see `Keeper.kill_at`.
    """

    paths: Sequence[str]
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    limits: Sequence[tuple[int, int]] = ()
    user: tuple[Sequence[int], int, int] | None = None
    network_off: bool = False
    sandboxed: bool = False
    may_leave: bool = False
    kill_at: float = math.inf
    umask: int = WORK_UMASK

    def text(self) -> bytes:
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()


class NotBegun(Exception):
    """The keeper could not start the program: in which step, and the errno of it."""

    def __init__(self, step: Step, number: int) -> None:
        super().__init__(step, number)
        self.step = step
        self.errno = number


class Starter(Protocol):
    """Has programs started; see `Keepers`, and `agents.processes.programs` for those of one attempt."""

    async def start(self, launch: Launch, files: Sequence[int]) -> "Keeper":
        """See `Keepers.start`."""
        ...


class Keeper:
    """One program and all that it starts. Closing it kills what is left, like the death of the agent.

    `ended` is the program's return code, negative for a signal. `clean` is how many processes beyond the program had to
    be killed, once nothing is left.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._forked: asyncio.Future[int] = self._loop.create_future()
        self._begun: asyncio.Future[Mapping[str, Any]] = self._loop.create_future()
        self.pid = 0
        self.start_ticks = 0
        self.keeper_pid = 0
        self.keeper_ticks = 0
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self.clean: asyncio.Future[int] = self._loop.create_future()

    async def begin(self, launch: Launch, files: Sequence[int], *, telling: Callable[[], None]) -> None:
        """Have the program started; `telling` is called right before the keeper gets the launch.

        Raises `NotBegun`, `TimeoutError` for a keeper that says nothing, and `OSError` for one that is lost.
        """
        text = launch.text()
        # A fresh buffer has room for so little.
        socket.send_fds(self._channel, [len(text).to_bytes(HEADER_BYTES, "big")], list(files))
        self._loop.add_reader(self._channel, self._hear)
        try:
            async with asyncio.timeout(KEEPER_SECONDS):
                self.keeper_pid = await self._forked
                self.keeper_ticks = ticks_of(self.keeper_pid)
                telling()
                await self._loop.sock_sendall(self._channel, text)
                await asyncio.wait({self._begun})
        except TimeoutError:
            self._hear()  # when the agent itself was paused, the answer is there
            if not self._begun.done():
                raise
        said = self._begun.result()
        if "failed" in said:
            raise NotBegun(Step(said["step"]), said["failed"])
        self.pid, self.start_ticks = said["started"], said["ticks"]

    def terminate(self) -> None:
        """Ask the program and what it started to end."""
        self._say("terminate")

    async def leave(self) -> None:
        """Let live what the program has left running. A keeper that does not answer is logged, and leaves later."""
        self._say("leave")
        self._signal(signal.SIGCONT)  # something that the program left may have stopped it
        if not await self._is_clean():
            log.error("work.keeper_silent", extra={"pid": self.pid, "keeper": self.keeper_pid})
            self._lose()

    def kill_at(self, deadline: float) -> None:
        """Have all of it killed at this time on the monotonic clock, also when the agent hangs by then."""
        self._say(f"deadline {deadline!r}")

    async def kill(self) -> None:
        """Kill all of it, and return when nothing is left; what the kernel cannot kill is logged and left."""
        self._say("kill")
        if await self._is_clean():
            return
        # It hangs, or was stopped. The guardian kills what it kept, and only then is its channel closed.
        self._signal(signal.SIGKILL)
        if not await self._is_clean():
            log.error("work.cannot_be_killed", extra={"pid": self.pid, "keeper": self.keeper_pid})
            self._lose()

    def close(self) -> None:
        if self._channel.fileno() >= 0:
            if not self.clean.done():
                self._signal(signal.SIGCONT)  # its program may have stopped it
            self._loop.remove_reader(self._channel)
            self._channel.close()
            self._lose()

    async def _is_clean(self) -> bool:
        done, _ = await asyncio.wait({self.clean}, timeout=KEEPER_SECONDS)
        return bool(done)

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the keeper, and not to another process that has got its id since."""
        if self.keeper_pid and ticks_of(self.keeper_pid) == self.keeper_ticks:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.keeper_pid, number)

    def _say(self, line: str) -> None:
        with suppress(OSError):  # gone, or stopped: the guardian, or `kill`, sees to that
            self._channel.send(f"{line}\n".encode())

    def _hear(self) -> None:
        try:
            data = self._channel.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._channel)
            self._lose()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, said: Mapping[str, Any]) -> None:
        if "keeper" in said:
            if not self._forked.done():
                self._forked.set_result(said["keeper"])
        elif not self._begun.done():
            self._begun.set_result(said)
        if "ended" in said and not self.ended.done():
            self.ended.set_result(os.waitstatus_to_exitcode(said["ended"]))
        if "clean" in said and not self.clean.done():
            self.clean.set_result(said["clean"])

    def _lose(self) -> None:
        """There is no keeper any more; when it was killed, so was the program, which the kernel binds to it."""
        for future in (self._forked, self._begun):
            if not future.done():
                future.set_exception(OSError(errno.EAGAIN, "the keeper of the program was lost"))
                future.exception()  # known, also when nothing waits for it
        if not self.ended.done():
            self.ended.set_result(-signal.SIGKILL)
        if not self.clean.done():
            self.clean.set_result(0)


class Keepers:
    """Has programs started. Use it as a context manager: what still runs when it closes is killed.

    The guardian starts with the first program; another one takes the place of one that is gone. `open_files`: how many
    files a program may have open where nothing else limits it; None for as many as this process.
    """

    def __init__(self, *, open_files: int | None = None) -> None:
        self._open_files = open_files
        self._guardian: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the guardian, when nothing is left that it must wait for."""
        self._end()

    async def start(
        self, launch: Launch, files: Sequence[int], *, telling: Callable[[], None] = lambda: None
    ) -> Keeper:
        """Have a program started with these files as its input, output and errors.

        Raises `NotBegun`, and `OSError` for what is wrong with the host. `telling` is called right before a keeper gets
        the order: an `OSError` without that call means that nothing ran, one after it that the program may have run.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            keeper = Keeper(ours)
            try:
                self._ask(theirs, MAY_LEAVE if launch.may_leave else KEEP)
                theirs.close()
                await keeper.begin(launch, files, telling=telling)
            except TimeoutError:
                if keeper.keeper_pid:
                    await keeper.kill()
                else:
                    log.warning("agent.guardian_lost", extra={"reason": "it does not answer"})
                    self._end(within=0)
                keeper.close()
                raise OSError(errno.EAGAIN, "the program did not begin in time") from None
            except BaseException:
                keeper.close()
                raise
        return keeper

    def _ask(self, channel: socket.socket, kind: bytes) -> None:
        if self._guardian is not None and self._guardian.poll() is not None:
            log.warning("agent.guardian_lost", extra={"reason": f"it ended with {self._guardian.returncode}"})
            self._end(within=0)
        if self._socket is None:
            self._start()
        assert self._socket is not None
        socket.send_fds(self._socket, [kind], [channel.fileno()])

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._guardian = subprocess.Popen(  # noqa: S603 - this interpreter and a module of ours
                (*COMMAND, "" if self._open_files is None else str(self._open_files)),
                cwd="/",
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket = ours

    def _end(self, *, within: float = END_SECONDS) -> None:
        guardian, self._guardian = self._guardian, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if guardian is None:
            return
        try:
            guardian.wait(within)
        except subprocess.TimeoutExpired:
            guardian.kill()
            guardian.wait()
