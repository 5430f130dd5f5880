"""Never more runs than there are slots, and nobody who waits for one is passed over or forgotten."""

import asyncio

import pytest
from agents.capacity import Capacity

from tests.eventually import eventually


def test_as_many_are_taken_as_there_are() -> None:
    capacity = Capacity(2)
    assert [capacity.take() for _ in range(3)] == [True, True, False]
    capacity.release()
    assert capacity.free == 1
    assert capacity.taken == 2


async def test_who_waits_gets_the_next_that_is_free_in_turn() -> None:
    capacity, order = Capacity(1), list[int]()
    capacity.take()

    async def wait(number: int) -> None:
        assert await capacity.take_within(5)
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(wait(number))
            await asyncio.sleep(0)
        for _ in range(3):
            assert not capacity.take(), "those who wait go first"
            capacity.release()
            await asyncio.sleep(0.01)
    assert order == [0, 1, 2]
    capacity.release()
    assert capacity.free == 1


async def test_who_has_waited_long_enough_takes_none() -> None:
    capacity = Capacity(1)
    capacity.take()
    assert not await capacity.take_within(0.01)
    capacity.release()
    assert capacity.free == 1, "the slot of somebody who has gone is lost to nobody"


async def test_who_has_given_up_keeps_nobody_else_waiting() -> None:
    capacity = Capacity(1)
    capacity.take()
    assert not await capacity.take_within(0.01)
    capacity.release()
    async with asyncio.timeout(1):
        assert await capacity.take_within(60)


async def test_who_is_cancelled_in_the_moment_of_getting_a_slot_leaves_it() -> None:
    capacity = Capacity(1)
    capacity.take()
    waiting = asyncio.create_task(capacity.take_within(5))
    await asyncio.sleep(0)
    capacity.release()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert capacity.free == 1


async def test_it_says_when_a_slot_is_free_for_which_nobody_waits() -> None:
    capacity, freed = Capacity(1), list[int]()
    capacity.freed = lambda: freed.append(capacity.free)
    capacity.take()
    waiting = asyncio.create_task(capacity.take_within(5))
    await asyncio.sleep(0)
    capacity.release()
    await waiting
    assert freed == []
    capacity.release()
    await eventually(lambda: freed == [1])


@pytest.mark.path_internals
async def test_a_slot_that_is_kept_is_taken_by_whom_it_is_kept_for() -> None:
    capacity = Capacity(2)
    capacity.keep(1)
    assert [capacity.take(), capacity.take()] == [True, False]
    capacity.take_kept()
    assert capacity.free == 0
    capacity.release()
    assert capacity.take()


@pytest.mark.path_internals
async def test_who_waits_gets_a_slot_that_is_kept_no_longer() -> None:
    capacity = Capacity(1)
    capacity.keep(1)
    waiting = asyncio.create_task(capacity.take_within(5))
    await asyncio.sleep(0)
    capacity.let_go(1)
    assert await waiting
    assert capacity.free == 0
