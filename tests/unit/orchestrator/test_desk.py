"""Who claims over HTTP is answered once, and what nobody heard of goes to others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast
from uuid import uuid4

import pytest

from orchestrator.jobs.desk import Desk
from orchestrator.jobs.model import Wanted, Worker
from orchestrator.tasks.model import Task
from tests.eventually import eventually

# The desk hands tasks on and looks at none.
TASK = cast("Task", "a task")
LONG, TIME_LIMIT = timedelta(minutes=1), 10


@dataclass
class Ledger:
    """Gives what it has to who asks first, once its gate is open."""

    tasks: list[Task] = field(default_factory=list)
    asked: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    handed_back: list[tuple[Wanted, Task]] = field(default_factory=list)

    async def give(self, wanted: Sequence[Wanted]) -> list[Task | None]:
        self.asked += 1
        await self.gate.wait()
        return [self.tasks.pop() if self.tasks else None for _ in wanted]

    async def hand_back(self, wanted: Wanted, task: Task) -> None:
        self.handed_back.append((wanted, task))


@asynccontextmanager
async def running(desk: Desk) -> AsyncIterator[None]:
    async def run() -> None:
        while True:
            await desk.run_once()

    work = asyncio.create_task(run())
    try:
        yield
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def make_wanted(*, repeatable: bool = False) -> Wanted:
    return Wanted(Worker("worker-1", uuid4()), uuid4(), repeatable=repeatable, lease=timedelta(seconds=30))


async def leave(claim: asyncio.Task[Task | None]) -> None:
    claim.cancel()
    await asyncio.gather(claim, return_exceptions=True)


@pytest.mark.parametrize("wait", [timedelta(0), LONG])
async def test_a_job_of_a_caller_that_left_before_the_answer_goes_to_others(wait: timedelta) -> None:
    ledger, wanted = Ledger([TASK]), make_wanted()
    desk = Desk(ledger.give, ledger.hand_back)
    async with running(desk):
        claim = asyncio.create_task(desk.claim(wanted, wait=wait))
        await eventually(lambda: ledger.asked == 1)
        await leave(claim)
        ledger.gate.set()

        await eventually(lambda: ledger.handed_back == [(wanted, TASK)], timeout=5)


async def test_a_job_of_a_caller_that_can_ask_again_with_its_claim_id_is_kept_for_it() -> None:
    ledger = Ledger([TASK, TASK])
    desk = Desk(ledger.give, ledger.hand_back)
    async with running(desk):
        claim = asyncio.create_task(desk.claim(make_wanted(repeatable=True), wait=LONG))
        await eventually(lambda: ledger.asked == 1)
        await leave(claim)
        ledger.gate.set()

        # What is to be handed back is handed back before anything else is given.
        assert await desk.claim(make_wanted(), wait=LONG) is TASK
        assert await desk.claim(make_wanted(), wait=timedelta(0)) is None
    assert ledger.handed_back == []


async def test_nothing_is_asked_for_a_caller_that_left_before_its_turn() -> None:
    ledger = Ledger([TASK])
    desk = Desk(ledger.give, ledger.hand_back)
    ledger.gate.set()
    claim = asyncio.create_task(desk.claim(make_wanted(), wait=LONG))
    await asyncio.sleep(0)
    await leave(claim)
    async with running(desk):
        assert await desk.claim(make_wanted(), wait=timedelta(0)) is TASK
    assert ledger.handed_back == []


async def test_a_claim_that_waits_is_answered_when_its_time_is_over() -> None:
    ledger = Ledger()
    desk = Desk(ledger.give, ledger.hand_back)
    ledger.gate.set()
    async with running(desk), asyncio.timeout(TIME_LIMIT):
        assert await desk.claim(make_wanted(), wait=timedelta(seconds=0.05)) is None
    assert not desk.listens


async def test_a_desk_that_closes_answers_all_who_wait_and_all_who_come() -> None:
    ledger = Ledger()
    desk = Desk(ledger.give, ledger.hand_back)
    ledger.gate.set()
    async with running(desk), asyncio.timeout(TIME_LIMIT):
        waiting = [asyncio.create_task(desk.claim(make_wanted(), wait=LONG)) for _ in range(3)]
        await eventually(lambda: ledger.asked > 0)

        desk.close()

        assert await asyncio.gather(*waiting) == [None] * 3
        assert await desk.claim(make_wanted(), wait=LONG) is None


async def test_a_failure_is_told_to_everybody_who_asked_and_the_next_is_served() -> None:
    ledger = Ledger([TASK])
    ledger.gate.set()
    failures = [ConnectionError("the ledger is away")]

    async def give(wanted: Sequence[Wanted]) -> list[Task | None]:
        if failures:
            raise failures.pop()
        return await ledger.give(wanted)

    desk = Desk(give, ledger.hand_back)
    claims = [asyncio.create_task(desk.claim(make_wanted(), wait=LONG)) for _ in range(2)]
    await asyncio.sleep(0)
    async with running(desk), asyncio.timeout(TIME_LIMIT):
        answers = await asyncio.gather(*claims, return_exceptions=True)

        assert [type(answer) for answer in answers] == [ConnectionError] * 2
        assert await desk.claim(make_wanted(), wait=LONG) is TASK
