"""Run a duty for ever: at once while there is more, asleep otherwise, and again after a failure."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol

from common.backoff import full_jitter

log = logging.getLogger(__name__)

FIRST_PAUSE = timedelta(milliseconds=200)
LONGEST_PAUSE = timedelta(seconds=5)


class Duty(Protocol):
    """Something that must happen again and again."""

    async def run_once(self) -> int:
        """Do what is due and return how much that was; 0 means that there is nothing more for now."""
        ...


class InTurn:
    """Several duties as one: each has its turn, also when one before it fails."""

    def __init__(self, *duties: Duty) -> None:
        self._duties = duties

    async def run_once(self) -> int:
        done, failures = 0, list[Exception]()
        for duty in self._duties:
            try:
                done += await duty.run_once()
            except Exception as failure:
                failures.append(failure)
        if failures:
            raise failures[0]
        return done


class Wake:
    """A bell: whoever rings it ends the sleeper's wait; rings while nobody sleeps are kept as one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def rung(self) -> None:
        """Return when rung."""
        await self._event.wait()
        self._event.clear()

    async def wait(self, timeout: timedelta) -> None:
        """Return when rung, or after `timeout`, whichever is first."""
        if self._event.is_set():  # nothing to wait for, so no timer either
            self._event.clear()
            return
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()


class Health:
    """Which loops are well: the name of each, and the failure it is recovering from, if any."""

    def __init__(self) -> None:
        self._failures: dict[str, str | None] = {}

    def well(self, name: str) -> None:
        self._failures[name] = None

    def failed(self, name: str, failure: BaseException) -> None:
        self._failures[name] = f"{type(failure).__name__}: {failure}"

    def failures(self) -> dict[str, str | None]:
        """Return each loop's current failure by its name; None for a loop that is well."""
        return dict(self._failures)


async def forever(name: str, duty: Duty, *, wake: Wake, every: timedelta, health: Health) -> None:
    """Run a duty until cancelled: again at once while it finds work, else when woken or after `every`."""

    async def once() -> None:
        if await duty.run_once() == 0:
            health.well(name)
            await wake.wait(every)

    await keep_running(name, once, health=health)


async def keep_running(name: str, step: Callable[[], Awaitable[object]], *, health: Health) -> None:
    """Repeat a step until cancelled; after a failure log it, wait with back-off, and go on.

    A step that lasts says itself, by `health.well`, that it is well again after a failure.
    """
    failures = 0
    health.well(name)
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            await step()
        except Exception as failure:
            lasted = clock() - began > LONGEST_PAUSE.total_seconds()
            failures = 1 if lasted else failures + 1
            health.failed(name, failure)
            log.exception("loop.failed", extra={"loop": name, "failures": failures})
            await asyncio.sleep(full_jitter(failures, base=FIRST_PAUSE, cap=LONGEST_PAUSE).total_seconds())
        else:
            if failures:
                failures = 0
                health.well(name)


async def end(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait until it has ended, however it does. Whoever is cancelled meanwhile stays so."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
