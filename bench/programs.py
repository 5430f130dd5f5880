"""Programs that run beside the measuring: started with a log file, stopped in order, never left behind."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

BENCH = Path(__file__).parent
OWN_PYTHON = Path(sys.executable)
PEERS_PYTHON = BENCH / ".venv" / "bin" / "python"
STOP_SECONDS = 60.0
LONGEST_LINE = 64 * 1024 * 1024


class ProgramFailed(Exception):
    """A program ended in another way than it should; the message says where its log is."""


@dataclass(frozen=True, slots=True)
class Place:
    """What one contender works with: a virtual host and a database of its own, and a folder for its logs."""

    amqp_url: str
    database_url: str
    folder: Path

    def environment(self) -> dict[str, str]:
        """Return the environment that tells a program of this place."""
        return {
            **os.environ,
            "PYTHONPATH": f"{BENCH.parent}:{BENCH.parent / 'src'}",
            "BENCH_AMQP_URL": self.amqp_url,
            "BENCH_DATABASE_URL": self.database_url,
        }


@asynccontextmanager
async def running(
    command: Sequence[str | Path], environment: Mapping[str, str], log: Path, *, piped: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program as long as the block runs; what it prints goes to the log, or to whoever reads it when `piped`."""
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if piped else out,
            stderr=out,
            start_new_session=True,
            limit=LONGEST_LINE,
        )
    try:
        yield process
    finally:
        await _stop(process)


async def finished(command: Sequence[str | Path], environment: Mapping[str, str], log: Path) -> Any:
    """Run a program to its end and return the JSON that it printed last, None for nothing. Raises `ProgramFailed`."""
    async with running(command, environment, log, piped=True) as process:
        output, _ = await process.communicate()
    if process.returncode != 0:
        raise ProgramFailed(f"{' '.join(map(str, command))} ended with {process.returncode}; see {log}")
    lines = output.splitlines()
    return json.loads(lines[-1]) if lines else None


async def next_line(process: asyncio.subprocess.Process, *, see: Path) -> Any:
    """Return the JSON of the next line that a piped program prints. Raises `ProgramFailed`."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise ProgramFailed(f"a program ended too early; see {see}")
    return json.loads(line)


def busy_seconds(process: psutil.Process) -> float:
    """Return how many seconds of a processor a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    finally:
        # Also what it started and left behind.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
