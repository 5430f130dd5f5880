"""Tell the guardian what runs and until when; see `agents.guardian` for what it does with that."""

import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from agents.attempts import Attempt
from common.safeguards import Safeguard, is_on

log = logging.getLogger(__name__)

# Isolated and without site-packages, so that it starts at once; it finds this package where this file is.
PROGRAM = "import sys; sys.path.append(sys.argv[1]); from agents.guardian import main; main()"
COMMAND = (sys.executable, "-I", "-S", "-c", PROGRAM, str(Path(__file__).parent.parent))
# How long it may take to end once its pipe is closed.
END_SECONDS = 2.0


class Guardian:
    """The agent's end of the pipe. Use it as a context manager: what is still held when it closes is killed.

    The process starts with the first group. A full pipe says that it hangs, a broken one that it is gone; either way
    another one takes its place and is told everything.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: dict[Attempt, list[tuple[int, int]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(within=END_SECONDS)

    def hold(self, attempt: Attempt, *, pid: int, start_ticks: int) -> None:
        """Have a process group killed when the lease of its attempt nears its end, or when this process dies."""
        self._groups.setdefault(attempt, []).append((pid, start_ticks))
        self._tell([_hold(attempt, pid, start_ticks)])

    def renewed(self, attempt: Attempt) -> None:
        """Pass on that the lease of an attempt now ends later."""
        self._tell([_hold(attempt, *group) for group in self._groups.get(attempt, ())])

    def done(self, attempt: Attempt) -> None:
        """Forget an attempt that has ended."""
        self._tell([b"done %d %d\n" % group for group in self._groups.pop(attempt, ())])

    def _tell(self, lines: list[bytes]) -> None:
        """Write the lines; never blocks and never raises, because what runs must not depend on it."""
        if not lines:
            return None
        try:
            if self._process is not None:
                return self._write(self._process, lines)
        except OSError as error:
            log.warning("agent.guardian_lost", extra={"reason": str(error)})
            self._end(within=0)
        everything = [_hold(attempt, *group) for attempt, groups in self._groups.items() for group in groups]
        try:
            self._process = _start()
            self._write(self._process, everything)
        except OSError as error:  # the next change tries again
            log.exception("agent.guardian_lost", extra={"reason": str(error)})
            self._end(within=0)

    @staticmethod
    def _write(process: subprocess.Popen[bytes], lines: list[bytes]) -> None:
        assert process.stdin is not None
        for line in lines:  # each is shorter than PIPE_BUF, so it is written whole or not at all
            os.write(process.stdin.fileno(), line)

    def _end(self, *, within: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        if not within:
            process.kill()  # before its pipe closes: it would take that for the death of the agent
        process.stdin.close()
        try:
            process.wait(within or END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(  # noqa: S603 - this interpreter and a module of ours
        COMMAND,
        bufsize=0,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _hold(attempt: Attempt, pid: int, start_ticks: int) -> bytes:
    ids = f"{attempt.task_id} {attempt.grant.attempt}"
    return f"hold {pid} {start_ticks} {_deadline(attempt)!r} {ids}\n".encode()


def _deadline(attempt: Attempt) -> float:
    """After the agent's own kill, a tenth of the lease before its end (see `LeaseKeeper`), and before that end."""
    if not is_on(Safeguard.SELF_FENCING):
        return math.inf
    return attempt.lease_until - attempt.grant.lease_seconds / 20
