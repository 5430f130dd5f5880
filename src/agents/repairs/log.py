"""The log of a step: a file that is kept, and output of the task while it runs. Secrets are hidden in both."""

import asyncio
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from agents.attempts.stopping import StopSignal
from agents.repairs.rules import secret_values, variables_in
from common.durable import write_all
from common.messages import LONGEST_MESSAGE, Stream
from common.progress import on_one_line
from common.redaction.stream import Redactor
from common.redaction.text import redacted
from common.redaction.values import Values

log = logging.getLogger(__name__)

WriteOutput = Callable[[Stream, bytes], Awaitable[None]]

MOST_VARIABLES_BYTES = 1024 * 1024
# So long a step that nothing holds up waits until its output is taken in.
MOMENT_SECONDS = 0.05


class Secrets:
    """The values that a repair hides in its logs and reports: those of variables that are named like secrets.

    `known`: other values to hide.
    """

    def __init__(self, variables: Mapping[str, str], known: Values | None = None) -> None:
        self._values = Values(secret_values(variables), parent=known)

    def learn(self, workspace: Path) -> None:
        """Hide what the `.env` of a workspace holds, too, which compose reads. Blocking."""
        try:
            text = _start_of(workspace / ".env").decode(errors="replace")
        except OSError:
            return
        self._values.hide(*secret_values(variables_in(text)), for_good=True)

    def hidden(self, text: str) -> str:
        return redacted(text, self._values)

    def hidden_bytes(self, data: bytes) -> bytes:
        redactor = Redactor(self._values)
        return redactor.feed(data) + redactor.flush()

    def on_one_line(self, text: str) -> str:
        """Return a message as it is reported."""
        return on_one_line(self.hidden(text))[:LONGEST_MESSAGE]

    def redactor(self) -> Redactor:
        return Redactor(self._values)


def _start_of(path: Path) -> bytes:
    """Return the first bytes of a regular file; anything else, such as a pipe that nobody writes to, holds none."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        return file.read(MOST_VARIABLES_BYTES) if stat.S_ISREG(os.fstat(handle).st_mode) else b""


class TaskOutput:
    """The logs of the steps as output of their task. Use it as a context manager.

    `write` waits while too much is on its way to a broker that is away. An order to stop ends that wait, and what lasts
    does not wait at all; what comes meanwhile is only in the log of the step.
    """

    def __init__(self, write: WriteOutput, stop: StopSignal) -> None:
        self._write = write
        self._stop = stop
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    async def add(self, data: bytes, *, lasts: bool) -> None:
        if self._writing is not None and not self._writing.done():
            return
        self._writing = asyncio.create_task(self._take(data), name="output of a repair")
        if lasts:
            await asyncio.wait({self._writing}, timeout=MOMENT_SECONDS)
            return
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({self._writing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()

    async def _take(self, data: bytes) -> None:
        try:
            await self._write(Stream.STDOUT, data)
        except Exception as problem:  # the log of the step has it
            log.warning("repair.output_lost", extra={"reason": str(problem)})


class StepLog:
    """The log of one step, which a repair goes on without when it cannot be written.

    `output` takes the same, if somebody does; a step that `lasts` is not held up by it.
    """

    def __init__(self, path: Path, secrets: Secrets, output: TaskOutput | None = None, *, lasts: bool = False) -> None:
        self.path = path
        self._secrets = secrets
        self._output = output
        self._lasts = lasts
        self._is_whole = True
        self._redactor = secrets.redactor()

    async def begin(self) -> None:
        """Throw away what an earlier life wrote."""
        await self._change(b"", os.O_TRUNC)

    async def say(self, text: str) -> None:
        """Add a line of the host's own."""
        await self._add(self._redactor.flush() + self._secrets.hidden_bytes(f"{text}\n".encode()))

    async def command(self, argv: Sequence[str]) -> None:
        """Say what is run."""
        await self.say(f"$ {' '.join(argv)}")

    async def take(self, data: bytes) -> None:
        """Add what a program wrote."""
        await self._add(self._redactor.feed(data))

    async def end_of_output(self) -> None:
        """Add what was held back of the output of a program that has ended."""
        await self._add(self._redactor.flush())

    async def _add(self, data: bytes) -> None:
        if not data:
            return
        await self._change(data, os.O_APPEND)
        if self._output is not None:
            await self._output.add(data, lasts=self._lasts)

    async def _change(self, data: bytes, how: int) -> None:
        try:
            await asyncio.to_thread(_write, self.path, data, how)
        except OSError as problem:
            if self._is_whole:
                log.warning("repair.log_lost", extra={"file": self.path.name, "reason": str(problem)})
            self._is_whole = False


def _write(path: Path, data: bytes, how: int) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)
    try:
        write_all(handle, data)
    finally:
        os.close(handle)
