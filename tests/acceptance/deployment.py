"""`chiffon up` as a user starts it: a process, with a directory of its own."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from chiffon import ledger
from chiffon.embedded_postgres import embedded_postgres

CHIFFON = (sys.executable, "-m", "chiffon")
START_LIMIT = 60
STOP_LIMIT = 60


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of this process without any settings of Chiffon but those given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHIFFON_")}
    return {**inherited, **variables}


@dataclass(frozen=True, slots=True)
class Up:
    """A running `chiffon up`."""

    process: asyncio.subprocess.Process
    url: str
    state: Path
    children: list[psutil.Process]

    def named(self, *words: str) -> list[psutil.Process]:
        """Return the children whose command line holds all these words."""
        return [child for child in self.children if all(word in child.cmdline() for word in words)]

    async def ends(self) -> int:
        """Wait until it has ended, and return its exit status."""
        async with asyncio.timeout(STOP_LIMIT):
            return await self.process.wait()

    def left_over(self) -> list[psutil.Process]:
        """Return the children that live, some seconds after they should be gone."""
        _, alive = psutil.wait_procs(self.children, timeout=10)
        return list(alive)


@asynccontextmanager
async def up(*flags: str, on: Path | None = None, umask: int = -1, **variables: str) -> AsyncIterator[Up]:
    """Start everything on a free port and wait until it says that it is ready; kill what is left at the end.

    `on`: the state to start from, which is copied; without it, everything is created.
    """
    # Not pytest's own directory: nobody but its owner may enter that, and PostgreSQL has a user of its own under root.
    state = Path(tempfile.mkdtemp(prefix="chiffon-test-"))
    state.chmod(0o711)
    if on is not None:
        await _copy(on, state)
    command = [*CHIFFON, "up", "--port", "0", "--state-dir", str(state), *flags]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**variables),
        umask=umask,
    )
    running: Up | None = None
    try:
        url = await _address(process)
        running = Up(process, url, state, psutil.Process(process.pid).children(recursive=True))
        yield running
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(STOP_LIMIT):
                await process.communicate()
        shutil.rmtree(state, ignore_errors=True)


async def chiffon(*words: str, **variables: str) -> tuple[int, str, str]:
    """Run a `chiffon` command to its end and return its exit status, its output and its messages."""
    process = await asyncio.create_subprocess_exec(
        *CHIFFON,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**variables),
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def dispatch(url: str, *words: str) -> tuple[int, dict[str, Any]]:
    """Dispatch a command, wait for its end, and return the exit status and the task."""
    status, out, err = await chiffon("dispatch", "shell_script", "--wait", "-o", "json", "--server", url, "--", *words)
    assert out, err
    return status, json.loads(out)


async def prepare_state(state: Path) -> None:
    """Create what takes `up` longest at its first start: a PostgreSQL cluster, and Chiffon's tables in it."""
    async with embedded_postgres(state, log=state / "log", durable=False) as (url, _):
        await ledger.upgrade(url)
    (state / "log").unlink()


async def _copy(state: Path, target: Path) -> None:
    # PostgreSQL's data belongs to a user of its own under root.
    copying = await asyncio.create_subprocess_exec("cp", "-a", f"{state}/.", str(target))
    assert await copying.wait() == 0


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(START_LIMIT):
        async for line in process.stdout:
            name, _, value = line.decode().strip().partition(" ")
            if name == "API":
                return value.strip()
    messages = (await process.stderr.read()).decode()
    raise AssertionError(f"chiffon up did not start:\n{messages}")
