"""The processes of Chiffon under test: started as in production, and started again whenever they end."""

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from chiffon.processes import Child
from tests.chaos.history import History, ProcessEnd

RESTART_PAUSE = 0.3
STOP_LIMIT = timedelta(seconds=20)


class Program:
    """One process and its successors. What each wrote is kept in a log of its own."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], logs: Path, history: History
    ) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._logs = logs
        self._history = history
        self._starts = 0
        self._child: Child | None = None
        self._wanted = asyncio.Event()
        self._killed = False
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Have the process run, and run again after it ends, until `stop`."""
        self._wanted.set()
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    @property
    def pid(self) -> int | None:
        return None if self._child is None or self._child.ended.done() else self._child.pid

    async def kill(self) -> None:
        """Kill -9, and stay dead until `start`."""
        self._wanted.clear()
        self._signal(signal.SIGKILL)
        if self._child is not None:
            await asyncio.shield(self._child.ended)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End it in order, for good."""
        self._wanted.clear()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._child is not None:
            self.resume()
            await self._child.stop(STOP_LIMIT)

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            self._killed = self._killed or number is signal.SIGKILL
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _keep(self) -> None:
        while True:
            await self._wanted.wait()
            self._starts += 1
            self._killed = False
            self._child = await Child.start(
                self.name,
                self._command,
                log=self._logs / f"{self.name}.{self._starts}.log",
                environment=self._environment,
            )
            code = await asyncio.shield(self._child.ended)
            self._history.ends.append(ProcessEnd(self.name, time.time(), code, self._killed))
            await asyncio.sleep(RESTART_PAUSE)
