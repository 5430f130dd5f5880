"""A duty runs again at once while there is more, when woken, and after a failure."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from common import loop
from common.loop import Health, Wake, end, forever
from tests.eventually import eventually

NEVER = timedelta(hours=1)


class Script:
    """A duty that returns, or raises, what it was told."""

    def __init__(self, *outcomes: int | Exception) -> None:
        self.outcomes = list(outcomes)
        self.runs = 0

    async def run_once(self) -> int:
        self.runs += 1
        outcome = self.outcomes.pop(0) if self.outcomes else 0
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@asynccontextmanager
async def running(duty: Script, wake: Wake, health: Health, every: timedelta = NEVER) -> AsyncIterator[None]:
    task = asyncio.create_task(forever("duty", duty, wake=wake, every=every, health=health))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_runs_again_at_once_while_there_is_more_and_sleeps_then() -> None:
    duty = Script(5, 5, 0)
    async with running(duty, Wake(), Health()):
        await eventually(lambda: duty.runs == 3)
        await asyncio.sleep(0.02)

        assert duty.runs == 3


async def test_a_bell_that_rang_while_it_was_busy_is_not_missed() -> None:
    duty, wake = Script(), Wake()
    wake.ring()
    wake.ring()
    async with running(duty, wake, Health()):
        await eventually(lambda: duty.runs == 2)
        wake.ring()
        await eventually(lambda: duty.runs == 3)


async def test_it_runs_from_time_to_time_without_being_woken() -> None:
    duty = Script()
    async with running(duty, Wake(), Health(), every=timedelta(milliseconds=5)):
        await eventually(lambda: duty.runs >= 3)


async def test_a_failure_is_reported_and_it_goes_on_until_it_is_well_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FIRST_PAUSE", timedelta(milliseconds=1))
    duty, health = Script(ConnectionError("away"), 0), Health()
    seen: list[str | None] = []
    health_failed = health.failed

    def note(name: str, failure: BaseException) -> None:
        health_failed(name, failure)
        seen.append(health.failures()[name])

    monkeypatch.setattr(health, "failed", note)
    async with running(duty, Wake(), health):
        await eventually(lambda: duty.runs == 2)

        assert seen == ["ConnectionError: away"]
        assert health.failures() == {"duty": None}


async def test_whoever_is_cancelled_while_a_task_ends_is_cancelled() -> None:
    may_end = asyncio.Event()

    async def ends_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()

    task = asyncio.create_task(ends_slowly())
    await asyncio.sleep(0)
    ending = asyncio.create_task(end(task))
    await asyncio.sleep(0)

    ending.cancel()
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await ending
    assert task.done()


async def test_however_a_task_ends_nobody_else_is_disturbed() -> None:
    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionError("away")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)

    await end(task)

    assert isinstance(task.exception(), ConnectionError)
