"""Run the programs of a repair, git, docker and compose, by keepers, and take what they write from files.

Files and no pipes: what a program writes while the agent is busy, or dies, blocks nobody.
"""

import asyncio
import os
import resource
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agents.attempts.stopping import StopSignal
from agents.processes.cannot_start import CannotStart
from agents.processes.keepers import Keeper, Launch, NotBegun, Starter
from agents.processes.lookup import paths_of
from agents.repairs.failures import StepFailed, Stopped
from agents.repairs.log import StepLog

LOOK_SECONDS = 0.1
# Of a program whose output is not followed, as much is read; of one whose output is followed, so much may come.
MOST_READ_BYTES = 16 * 1024 * 1024
MOST_OUTPUT_BYTES = 64 * 1024 * 1024
TAIL_BYTES = 2000
PIECE_BYTES = 64 * 1024

User = tuple[Sequence[int], int, int]


@dataclass(frozen=True, slots=True)
class Ran:
    """A program that has ended by itself. `errors` is what it wrote last for people."""

    program: str
    code: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace").strip()

    def check(self, doing: str) -> None:
        """Raise `StepFailed` unless it succeeded; `doing` is what it was to do, to stand before what it said."""
        if self.code != 0:
            said = self.errors.strip() or f"{self.program} ended with exit code {self.code}"
            raise StepFailed(f"{doing}: {said}")


@dataclass(frozen=True, slots=True)
class Programs:
    """Runs programs with exactly this environment and within these limits.

    `stop`: an order to stop ends them, and raises `Stopped`; None for those that finish whatever is ordered. `started`
    is told the keeper of each.
    """

    starter: Starter
    environment: Mapping[str, str]
    scratch: Path
    limits: Sequence[tuple[int, int]] = ((resource.RLIMIT_CORE, 0),)
    stop: StopSignal | None = None
    kill_grace: float = 10.0
    started: Callable[[Keeper], None] = lambda _keeper: None

    def check_stop(self) -> None:
        """Raise `Stopped` once a stop is ordered."""
        if self.stop is not None and self.stop.reason is not None:
            raise Stopped

    async def pause(self, seconds: float) -> None:
        """Wait; raises `Stopped` as soon as a stop is ordered."""
        if self.stop is None:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        except TimeoutError:
            return
        raise Stopped

    async def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        seconds: float,
        log: StepLog | None = None,
        more: Mapping[str, str] | None = None,
        user: User | None = None,
    ) -> Ran:
        """Run a program to its end. With a `log`, what it writes goes there as it comes.

        Raises `StepFailed` when it cannot be started, takes too long or writes too much, and `Stopped`.
        """
        self.check_stop()
        if log is not None:
            await log.command(argv)
        with ExitStack() as files:
            given, output = files.enter_context(_no_input()), files.enter_context(self._file())
            errors = output if log is not None else files.enter_context(self._file())
            launch = Launch(
                paths=paths_of(argv[0]),
                argv=list(argv),
                env={**self.environment, **(more or {})},
                cwd=str(cwd),
                limits=self.limits,
                user=user,
            )
            keeper = await self._begin(launch, cwd, [given.fileno(), output.fileno(), errors.fileno()])
            files.callback(keeper.close)  # also when this task is cancelled: nothing survives
            self.started(keeper)
            following = _Following(output, errors, log)
            try:
                await self._until_its_end(keeper, following, argv, seconds)
                await keeper.kill()  # what it has left running
                await following.to_the_end()
            finally:
                following.close()
            if log is not None:
                await log.end_of_output()
            return Ran(argv[0], keeper.ended.result(), b"" if log else _content(output), _tail(errors))

    async def _begin(self, launch: Launch, cwd: Path, files: Sequence[int]) -> Keeper:
        try:
            return await self.starter.start(launch, files)
        except NotBegun as failure:
            error = OSError(failure.errno, os.strerror(failure.errno))
            raise StepFailed(str(CannotStart(launch.argv[0], launch.paths, cwd, error))) from None
        except OSError as error:
            raise StepFailed(f"The host could not start {launch.argv[0]!r}: {error.strerror or error}.") from None

    async def _until_its_end(
        self, keeper: Keeper, following: "_Following", argv: Sequence[str], seconds: float
    ) -> None:
        now = asyncio.get_running_loop().time
        over_at = now() + seconds
        waited: set[asyncio.Future[Any]] = {keeper.ended}
        while not keeper.ended.done():
            await asyncio.wait(waited, timeout=max(0.0, min(LOOK_SECONDS, over_at - now())))
            following.go_on()
            if keeper.ended.done():
                return
            if self.stop is not None and self.stop.reason is not None:
                await self._end(keeper, until=self.stop.kill_at)
                raise Stopped
            if now() >= over_at:
                await self._end(keeper, until=now() + self.kill_grace)
                raise StepFailed(f"{_named(argv)} took longer than {seconds:g} seconds, and was stopped.")
            if following.is_too_much:
                await keeper.kill()
                raise StepFailed(f"{_named(argv)} wrote more than {MOST_OUTPUT_BYTES} bytes, and was stopped.")

    async def _end(self, keeper: Keeper, *, until: float) -> None:
        keeper.terminate()
        left = until - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.wait({keeper.ended}, timeout=min(left, self.kill_grace))
        await keeper.kill()

    def _file(self) -> IO[bytes]:
        if self.stop is None:  # what finishes whatever happens does so on a full disk, too
            return os.fdopen(os.memfd_create("output", os.MFD_CLOEXEC), "w+b")
        return tempfile.TemporaryFile(dir=self.scratch)


def _no_input() -> IO[bytes]:
    return Path(os.devnull).open("rb")


class _Following:
    """Reads what a program adds to a file, beside the look at its end: a log that waits holds up nothing else."""

    def __init__(self, output: IO[bytes], errors: IO[bytes], log: StepLog | None) -> None:
        self._output = output
        self._errors = errors
        self._log = log
        self._at = 0
        self._reading: asyncio.Task[None] | None = None

    @property
    def is_too_much(self) -> bool:
        return any(os.fstat(file.fileno()).st_size > MOST_OUTPUT_BYTES for file in (self._output, self._errors))

    def go_on(self) -> None:
        """Have what is there read, unless the log has not taken in yet what was read before."""
        if self._reading is not None:
            if not self._reading.done():
                return
            self._reading.result()
        self._reading = asyncio.create_task(self._read(), name="output of a program")

    async def to_the_end(self) -> None:
        """Return when the log has taken in all."""
        if self._reading is not None:
            await self._reading
        await self._read()

    async def _read(self) -> None:
        if self._log is None:
            return
        while data := os.pread(self._output.fileno(), PIECE_BYTES, self._at):
            self._at += len(data)
            await self._log.take(data)

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()


def _content(file: IO[bytes]) -> bytes:
    size = os.fstat(file.fileno()).st_size
    if size > MOST_READ_BYTES:
        raise StepFailed(f"A program wrote {size} bytes, and at most {MOST_READ_BYTES} are read.")
    return os.pread(file.fileno(), size, 0)


def _tail(file: IO[bytes]) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES)).decode(errors="replace")


def _named(argv: Sequence[str]) -> str:
    return " ".join(argv[:3])
