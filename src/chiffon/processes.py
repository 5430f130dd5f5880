"""Child processes that do not outlive their parent, write to a log file, and stop when they are told to."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

from common.errors import StartupRefused

PR_SET_PDEATHSIG = 1
TAIL_BYTES = 4096
TAIL_LINES = 20


class User(NamedTuple):
    """Whose rights a child process has."""

    uid: int
    gid: int


class ChildDied(StartupRefused):
    """A process ended although nobody asked it to; the message holds the end of its log."""


class Child:
    """A process that was started here. `ended` is done when it is."""

    def __init__(self, name: str, log: Path, process: asyncio.subprocess.Process, *, may_leave: bool = False) -> None:
        self.name = name
        self.log = log
        self._may_leave = may_leave
        self._process = process
        self.ended = asyncio.create_task(process.wait(), name=f"wait for {name}")

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str],
        user: User | None = None,
        when_orphaned: signal.Signals = signal.SIGTERM,
        may_leave: bool = False,
    ) -> Self:
        """Start a command in a session of its own, so that Ctrl-C reaches only the one who stops it in order.

        When this process dies, even of SIGKILL, the child gets the signal `when_orphaned`. One that `may_leave` has
        not failed when it ends with status 0.
        """
        rights: dict[str, Any] = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *map(str, command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(environment),
                start_new_session=True,
                preexec_fn=_die_with_parent(when_orphaned),
                **rights,
            )
        return cls(name, log, process, may_leave=may_leave)

    @property
    def pid(self) -> int:
        return self._process.pid

    def failure(self) -> ChildDied | None:
        """Return why the process ended, with the end of its log; None if it left in good order."""
        code = self._process.returncode
        if code == 0 and self._may_leave:
            return None
        if code is None:
            how = "still running"
        else:
            how = f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        return ChildDied(f"{self.name} ended ({how}). The end of {self.log}:\n\n{self._tail()}\n")

    async def stop(self, grace: timedelta, *, how: signal.Signals = signal.SIGTERM) -> None:
        """Ask the process to stop; kill it and what it started when it has not done so in time."""
        if not self.ended.done():
            with suppress(ProcessLookupError):
                self._process.send_signal(how)
        try:
            async with asyncio.timeout(grace.total_seconds()):
                await asyncio.shield(self.ended)
        except TimeoutError:
            self._kill()
            await asyncio.shield(self.ended)
        except asyncio.CancelledError:
            self._kill()
            raise

    def _tail(self) -> str:
        with suppress(OSError):
            text = self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
            return "\n".join(text.splitlines()[-TAIL_LINES:])
        return "(it cannot be read)"

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _die_with_parent(how: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def prepare() -> None:
        # Runs between fork and exec, and after the change of user, which would clear the setting.
        libc.prctl(PR_SET_PDEATHSIG, int(how), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
