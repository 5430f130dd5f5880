"""The worker under test: a command that is started, killed, frozen and ended in a process group of its own."""

import asyncio
import os
import shlex
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

VARIABLES: Mapping[str, str] = {
    "server": "QUEUE_SERVER",
    "worker": "QUEUE_WORKER_ID",
    "type": "QUEUE_WORK_TYPE",
    "lease": "QUEUE_LEASE_SECONDS",
    "token": "QUEUE_TOKEN",
}


class CannotStart(Exception):
    """The command of the worker cannot be run; the message says why."""


def command(template: str, values: Mapping[str, str]) -> list[str]:
    """Return the arguments that a template means: `{server}`, `{worker}`, `{type}` and `{lease}` are filled in.

    Raises `CannotStart` when it cannot be read.
    """
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise CannotStart(f"--worker cannot be read: {error}: {template!r}") from None
    if not words:
        raise CannotStart("--worker is empty: give the command that starts the worker")
    # Every user of the host can see the words of a command, so the token is in the environment only.
    for name, value in ((name, value) for name, value in values.items() if name != "token"):
        words = [word.replace(f"{{{name}}}", value) for word in words]
    return words


class WorkerProcess:
    """One process of the worker; what it prints goes to the end of `log`."""

    def __init__(self, arguments: list[str], values: Mapping[str, str], log: Path) -> None:
        self._arguments = arguments
        self._values = values
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.returncode is not None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    async def start(self) -> None:
        """Start it. Raises `CannotStart`."""
        told = {VARIABLES[name]: value for name, value in self._values.items()}
        with self._log.open("ab") as output:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._arguments,
                    env={**os.environ, **told},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            except OSError as error:
                raise CannotStart(f"--worker cannot be started: {error}") from None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker and to all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._pid, number)

    def terminate(self) -> None:
        """Ask the worker itself to leave, as a service manager does."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)

    async def ended(self, *, within: float) -> bool:
        """Wait for its end; False when it is still there after so many seconds."""
        assert self._process is not None
        try:
            async with asyncio.timeout(within):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def left_something(self) -> bool:
        """Say whether anything that it started still runs."""
        try:
            os.killpg(self._pid, 0)
        except ProcessLookupError:
            return False
        return True

    async def kill(self) -> None:
        """End it and all that it started, at once."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            await self._process.wait()

    @property
    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid
