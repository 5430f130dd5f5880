"""Own one program and all that it starts: a process of its own, which dies with nothing left below it.

The guardian forks it for each program. It is a child subreaper: whatever loses its parent becomes its child, also a
process that called `setsid`, forked twice or dropped its environment. So everything that the program started is below
it, and it has killed everything when the kernel says that it has no child. Their ids cannot be given to another process
before it has reaped them, and it reaps none of them before all are dead. Outside Linux it owns the program alone, and
kills it with its process group.

The agent speaks to it over a socket, in lines; a socket that closes means that the agent is gone, and all is killed:

    terminate               SIGTERM, so that they can end by themselves
    kill                    SIGKILL, until nothing is left
    leave                   let live what is left, and only reap it
    deadline <seconds>      kill at that time on CLOCK_MONOTONIC, whether or not the agent can still say so

It answers, as JSON lines: `started`, or `failed` with an errno; `ended`, with the status of the program as `waitpid`
gives it; `clean`, with the number of those that were killed beyond the program. Nothing but the standard library.
"""

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from agents.processes.program import PR_SET_CHILD_SUBREAPER, NotStarted, prctl, start
from agents.processes.table import are_shown, children_of, descendants, kill_tree, ticks_of

LONGEST_SLEEP = 3600.0
# How long what was killed may take to die before it is looked for again.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.05
READ_BYTES = 64 * 1024
HEADER_BYTES = 4
STANDARD_FILES = 3


def keep(channel: socket.socket) -> None:
    """Start the program that the agent asks for, and return when nothing of it is left."""
    os.setsid()
    if prctl is not None:
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    try:
        launch, files = _launch(channel)
    except EOFError:
        return  # the agent went away before it said what to run
    keeper = Keeper(channel, woken)
    try:
        keeper.start(launch, files)
    except NotStarted as error:
        keeper.say(failed=error.errno, step=error.step)
        return
    keeper.run()


def _launch(channel: socket.socket) -> tuple[Mapping[str, Any], list[int]]:
    """Read what to run, and take the files that are to be its input and its outputs."""
    header, files, _, _ = socket.recv_fds(channel, HEADER_BYTES, STANDARD_FILES)
    for file in files:
        os.set_inheritable(file, False)
    rest = int.from_bytes(header, "big")
    if len(header) < HEADER_BYTES or len(files) < STANDARD_FILES:
        raise EOFError
    body = bytearray()
    while len(body) < rest:
        data = channel.recv(rest - len(body))
        if not data:
            raise EOFError
        body += data
    launch: Mapping[str, Any] = json.loads(body)
    return launch, files


class Keeper:
    def __init__(self, channel: socket.socket, woken: int) -> None:
        self._channel = channel
        self._woken = woken
        self._program = 0
        self._is_sandboxed = False
        self._has_ended = False
        self._is_clean = False
        self._is_terminating = False
        self._asked: set[int] = set()
        self._is_killing = False
        self._killed = 0
        self._deadline = float("inf")
        self._rest = b""

    def start(self, launch: Mapping[str, Any], files: list[int]) -> None:
        """Raises `NotStarted`."""
        self._is_sandboxed = launch["sandboxed"]
        self._deadline = launch["kill_at"]
        self._program = start(launch, files)
        for file in files:
            os.close(file)
        self.say(started=self._program, ticks=ticks_of(self._program))

    def run(self) -> None:
        sources: list[socket.socket | int] = [self._channel, self._woken]
        while not self._reap():
            left = self._deadline - time.monotonic()
            # The end of a process that is no child here wakes nothing.
            longest = LONGEST_PAUSE if self._has_ended and not self._owns_all() else LONGEST_SLEEP
            ready, _, _ = select.select(sources, [], [], max(0.0, min(left, longest)))
            if self._woken in ready:
                self._pause(0)
                if self._is_terminating and not self._is_sandboxed:
                    self._terminate()  # also what has lost its parent only now
            if self._channel in ready and not self._obey():
                return
            if not ready and left <= 0:
                # Only when nothing was said: after a pause of the whole host a later deadline may be among the lines.
                self._kill_all()

    def say(self, **what: object) -> None:
        """Tell the agent; one that has gone away does not hear it."""
        with suppress(OSError):
            self._channel.sendall(json.dumps(what).encode() + b"\n")

    def _obey(self) -> bool:
        """Do what the agent says; return whether there is still something to do."""
        try:
            data = self._channel.recv(READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            self._kill_all()
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            match line.decode().split():
                case ["terminate"]:
                    self._is_terminating = True
                    self._terminate()
                case ["kill"]:
                    self._kill_all()
                case ["leave"]:
                    self._leave()
                    return False
                case ["deadline", at]:
                    self._deadline = float(at)
                case _:
                    pass
        return True

    def _reap(self, options: int = os.WNOHANG) -> bool:
        """Collect those that have ended, and tell the agent; return whether none is left."""
        news: dict[str, int] = {}
        try:
            pid, status = os.waitpid(-1, options)
            while pid:
                if pid == self._program:
                    self._has_ended = True
                    news["ended"] = status
                elif self._is_killing and status == signal.SIGKILL:
                    self._killed += 1
                pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            if not self._is_clean and (self._owns_all() or not _signal(os.killpg, self._program, 0)):
                self._is_clean = True
                news["clean"] = self._killed
        if news:
            self.say(**news)
        return self._is_clean

    def _terminate(self) -> None:
        """Ask all to end. What keeps a sandbox takes the others with it, so it is left out and ends after them."""
        if self._is_sandboxed and not self._has_ended:
            for seen in descendants(self._program):
                _signal(os.kill, seen.pid, signal.SIGTERM)
                _signal(os.kill, seen.pid, signal.SIGCONT)
            return
        groups = {_group(pid) for pid in children_of(os.getpid())} if self._owns_all() else {self._program}
        for group in groups - {0} - self._asked:
            self._asked.add(group)
            _signal(os.killpg, group, signal.SIGTERM)
            _signal(os.killpg, group, signal.SIGCONT)  # a stopped process takes no other signal

    def _kill_all(self) -> None:
        """Kill until nothing is left."""
        self._is_killing = True
        with suppress(OSError, AttributeError):  # for root only: before a thousand processes that do nothing but fork
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        pause = SHORTEST_PAUSE
        while not self._is_clean:
            while kill_tree(children_of(os.getpid())):
                pause = self._pause(pause)
            if not self._owns_all():
                _signal(os.killpg, self._program, signal.SIGKILL)
            if not self._reap():
                pause = self._pause(pause)

    def _owns_all(self) -> bool:
        """Whether all that the program starts stays below this process and is seen there; else it has its group."""
        return prctl is not None and are_shown()

    def _pause(self, seconds: float) -> float:
        """Wait until a child has ended, but not for long; return how long the next pause may be."""
        select.select([self._woken], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._woken, READ_BYTES)
        return min(2 * seconds, LONGEST_PAUSE)

    def _leave(self) -> None:
        """Let live what is left, and stay as its parent: it has another one no more."""
        self.say(clean=0)
        self._channel.close()
        signal.set_wakeup_fd(-1)
        while self._owns_all() and not self._reap(options=0):
            pass


def _group(pid: int) -> int:
    """Return the process group of a child; 0 for our own, and for a child that is gone."""
    try:
        group = os.getpgid(pid)
    except ProcessLookupError:
        return 0
    return 0 if group == os.getpgrp() else group


def _signal(send: Callable[[int, int], None], target: int, number: int) -> bool:
    """Send a signal, 0 for none; return whether there was a process that could get it."""
    try:
        send(target, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
