"""Fork a keeper for each program of an agent, and end what a keeper leaves that was killed.

A process of its own with nothing but the standard library: its forks are cheap, and what the agent does with threads
and connections cannot get into a program. It is a child subreaper like its keepers: when one of them is killed, all
that it kept becomes a child of the guardian, which kills what is not one of its keepers.

Its input is a socket from the agent. One byte with one descriptor asks for a keeper, which speaks to the agent over
that descriptor from then on. The guardian keeps a copy of it until nothing of that keeper is left, so that its closing
tells the agent just that. When the agent is gone, the keepers see it themselves; the guardian ends after them, but does
not wait for those that the agent allowed to leave something running.
"""

import gc
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import NamedTuple, NoReturn

from agents.processes.keeper import LONGEST_PAUSE, READ_BYTES, keep
from agents.processes.program import IGNORED, PR_SET_CHILD_SUBREAPER, prctl
from agents.processes.table import children_of, kill_tree

KEEP, MAY_LEAVE = b"k", b"l"
CHANNEL = 3


class Kept(NamedTuple):
    channel: int
    may_leave: bool


class Guardian:
    def __init__(self, agent: socket.socket) -> None:
        self._agent = agent
        self._has_agent = True
        self._keepers: dict[int, Kept] = {}
        self._ended: list[int] = []
        self._must_look = False
        self._woken, wake = os.pipe()
        for end in (self._woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def run(self) -> None:
        while self._has_agent or self._ended or not all(kept.may_leave for kept in self._keepers.values()):
            sources: list[socket.socket | int] = [self._woken]
            if self._has_agent:
                sources.append(self._agent)
            ready, _, _ = select.select(sources, [], [], LONGEST_PAUSE if self._must_look else None)
            if self._woken in ready:
                with suppress(BlockingIOError):
                    os.read(self._woken, READ_BYTES)
            if self._woken in ready or self._must_look:
                self._reap()
            if self._agent in ready:
                self._serve()

    def _serve(self) -> None:
        try:
            kind, files, _, _ = socket.recv_fds(self._agent, 1, 1)
        except ConnectionError:
            kind, files = b"", []
        self._has_agent = bool(kind)
        if not kind:
            for pid in self._keepers:  # one that its program has stopped must see, too, that the agent is gone
                os.kill(pid, signal.SIGCONT)
        for channel in files:
            try:
                pid = os.fork()
            except OSError:  # no room for another process: the closed channel tells the agent
                os.close(channel)
                continue
            if pid == 0:
                _become_keeper(channel)
            self._keepers[pid] = Kept(channel, kind == MAY_LEAVE)
            with suppress(OSError):  # not by the keeper: a program could stop it before it speaks
                os.write(channel, b'{"keeper": %d}\n' % pid)

    def _reap(self) -> None:
        """Reap ended keepers; kill the children of killed ones."""
        for pid, kept in list(self._keepers.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._keepers[pid]
                self._ended.append(kept.channel)
                self._must_look = self._must_look or status != 0
        if self._must_look:
            strays = [pid for pid in children_of(os.getpid()) if pid not in self._keepers]
            self._must_look = bool(strays)
            if not kill_tree(strays):
                for pid in strays:
                    os.waitpid(pid, os.WNOHANG)
        if not self._must_look:
            for channel in self._ended:
                os.close(channel)
            self._ended.clear()


def _become_keeper(channel: int) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        os.dup2(channel, CHANNEL, inheritable=False)
        os.closerange(CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.close(nothing)
        keep(socket.socket(fileno=CHANNEL))
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def main() -> None:
    if sys.argv[2]:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), hard))
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if prctl is not None:
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    gc.freeze()  # so that the keepers share this memory
    gc.disable()
    Guardian(socket.socket(fileno=0)).run()
