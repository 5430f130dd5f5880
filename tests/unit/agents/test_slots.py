"""Never more runs than there are slots, and as much work is asked for as fits into them."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from agents.attempts.owned import Attempt
from agents.tasks import slots as slots_module
from agents.tasks.availability import Availability
from agents.tasks.slots import Slots
from tests.factories import make_grant
from tests.fakes.clock import FakeClock

SESSION = UUID(int=8)


def make_slots(count: int = 2, *, availability: Availability | None = None, clock: FakeClock | None = None) -> Slots:
    slots = Slots(count, SESSION, availability or Availability(), clock or FakeClock())
    slots.open()
    return slots


def make_attempt() -> Attempt:
    return Attempt.granted(make_grant(claim_id=SESSION), asked_at=0.0)


async def test_as_many_slots_are_taken_as_there_are() -> None:
    slots = make_slots(2)
    await slots.take()
    await slots.take()

    assert not slots.is_one_free
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(slots.take(), 0.01)
    slots.release()
    assert slots.is_one_free


async def test_who_waits_gets_the_next_slot_in_turn() -> None:
    slots, order = make_slots(1), list[str]()
    await slots.take()

    async def wait(name: str) -> None:
        await slots.take()
        order.append(name)
        slots.release()

    async with asyncio.TaskGroup() as group:
        for name in ("first", "second", "third"):
            group.create_task(wait(name))
        await asyncio.sleep(0)
        slots.release()

    assert order == ["first", "second", "third"]


async def test_who_is_cancelled_in_the_moment_of_getting_a_slot_leaves_it() -> None:
    slots = make_slots(1)
    await slots.take()
    leaver = asyncio.create_task(slots.take())
    await asyncio.sleep(0)

    slots.release()
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)

    assert slots.is_one_free


async def test_an_agent_asks_for_a_task_for_each_slot_and_one_more_for_each_that_ended() -> None:
    slots = make_slots(2)
    first = slots.credit()
    attempts = [make_attempt(), make_attempt()]
    for _ in attempts:
        slots.receive()
    slots.end(attempts[0])

    second = slots.credit()

    assert (first.session, first.number, first.limit, first.received) == (SESSION, 1, 2, 0)
    assert (second.session, second.number, second.limit, second.received) == (SESSION, 2, 3, 2)


async def test_the_end_of_an_attempt_counts_once() -> None:
    slots, attempt = make_slots(2), make_attempt()
    slots.receive()

    assert slots.end(attempt)
    assert not slots.end(attempt)

    assert slots.credit().limit == 3


async def test_an_agent_that_takes_no_work_asks_for_no_more_until_it_does_again() -> None:
    availability = Availability()
    slots = make_slots(2, availability=availability)
    slots.credit()
    availability.pause(datetime.now(UTC) + timedelta(hours=1), ordered_at=datetime.now(UTC))
    slots.receive()
    slots.end(make_attempt())

    closed = slots.credit()
    availability.resume()

    assert (closed.limit, closed.received) == (2, 1)
    assert slots.credit().limit == 3


async def test_an_agent_that_took_no_work_from_its_start_on_asks_for_none() -> None:
    availability = Availability()
    availability.drain()

    assert make_slots(2, availability=availability).credit().limit == 0


async def test_what_was_heard_of_never_shrinks() -> None:
    slots = make_slots()
    slots.heard(3)
    slots.heard(2)

    assert slots.credit().heard == 3


async def test_a_lease_counts_from_when_its_message_was_about_to_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module, "REMEMBERED_MESSAGES", 2)
    clock = FakeClock()
    slots, sent = make_slots(clock=clock), dict[int, float]()
    for _ in range(3):
        sent[slots.credit().number] = clock.monotonic()
        clock.advance(seconds=1)
    grant = make_grant()

    assert [slots.asked_at(grant, number) for number in (2, 3)] == [sent[2], sent[3]]
    assert [slots.asked_at(grant, number) for number in (None, 1, 4)] == [None, None, None]


async def test_an_agent_notices_by_the_next_grant_that_one_before_did_not_come() -> None:
    slots = make_slots(2)

    slots.receive(granted=2)

    assert slots.is_more_granted
    credit = slots.credit()
    assert (credit.received, credit.heard) == (1, 2)


async def test_no_work_is_asked_for_before_there_is_what_takes_it_in() -> None:
    slots = Slots(2, SESSION, Availability(), FakeClock())

    before = slots.credit().limit
    slots.open()

    assert (before, slots.credit().limit) == (0, 2)
