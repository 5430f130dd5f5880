"""What arrives together is done together, and an idle system answers at once."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from common.batching import Batcher


async def test_what_arrives_while_a_batch_is_handled_is_the_next_batch() -> None:
    batches: list[list[int]] = []
    first_is_handled, go_on = asyncio.Event(), asyncio.Event()

    async def double(items: Sequence[int]) -> Sequence[int]:
        batches.append(list(items))
        first_is_handled.set()
        await go_on.wait()
        return [item * 2 for item in items]

    async with Batcher(double, limit=10) as batcher:
        first = asyncio.create_task(batcher.submit(1))
        await first_is_handled.wait()
        rest = [asyncio.create_task(batcher.submit(item)) for item in (2, 3, 4)]
        await asyncio.sleep(0)
        go_on.set()

        assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]

    assert batches == [[1], [2, 3, 4]]


async def test_items_gather_after_a_batch_of_several_and_one_that_is_alone_never_waits() -> None:
    batches: list[list[int]] = []

    async def note(items: Sequence[int]) -> Sequence[int]:
        batches.append(list(items))
        return items

    async with Batcher(note, limit=10, gather=timedelta(seconds=0.05)) as batcher:
        await batcher.submit_all([1, 2])
        first = asyncio.create_task(batcher.submit(3))
        for _ in range(5):
            await asyncio.sleep(0)
        await asyncio.gather(first, batcher.submit(4))
    assert batches == [[1, 2], [3, 4]]

    async with Batcher(note, limit=10, gather=timedelta(hours=1)) as batcher:
        await batcher.submit(5)
        await batcher.submit(6)
    assert batches[2:] == [[5], [6]]


async def test_a_batch_is_never_larger_than_its_limit() -> None:
    sizes: list[int] = []

    async def note(items: Sequence[int]) -> Sequence[int]:
        sizes.append(len(items))
        return items

    async with Batcher(note, limit=3) as batcher:
        await asyncio.gather(*(batcher.submit(item) for item in range(10)))

    assert sum(sizes) == 10
    assert max(sizes) == 3


async def test_one_bad_item_fails_alone() -> None:
    async def refuse_odd(items: Sequence[int]) -> Sequence[int | BaseException]:
        return [ValueError(f"{item} is odd") if item % 2 else item for item in items]

    async with Batcher(refuse_odd, limit=10) as batcher:
        results = await asyncio.gather(*(batcher.submit(item) for item in range(3)), return_exceptions=True)

    assert results[0] == 0
    assert isinstance(results[1], ValueError)
    assert results[2] == 2


async def test_a_batch_that_fails_as_a_whole_fails_for_every_caller_and_the_next_one_works() -> None:
    fail = True

    async def sometimes(items: Sequence[int]) -> Sequence[int]:
        if fail:
            raise ConnectionError("away")
        return items

    async with Batcher(sometimes, limit=10) as batcher:
        results = await asyncio.gather(*(batcher.submit(item) for item in range(3)), return_exceptions=True)
        fail = False

        assert [type(result) for result in results] == [ConnectionError] * 3
        assert await batcher.submit(7) == 7


async def test_nobody_is_left_waiting_when_it_ends() -> None:
    async def never(items: Sequence[int]) -> Sequence[int]:
        await asyncio.Event().wait()
        return items

    async with Batcher(never, limit=1) as batcher:
        waiting = [asyncio.create_task(batcher.submit(item)) for item in range(3)]
        await asyncio.sleep(0)

    for one in waiting:
        with pytest.raises(asyncio.CancelledError):
            await one


async def test_a_caller_that_gives_up_does_not_disturb_the_others() -> None:
    go_on = asyncio.Event()

    async def wait(items: Sequence[int]) -> Sequence[int]:
        await go_on.wait()
        return items

    async with Batcher(wait, limit=10) as batcher:
        impatient, patient = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        impatient.cancel()
        go_on.set()

        assert await patient == 2


async def test_items_handed_in_together_are_answered_together_in_their_order_beside_others() -> None:
    batches: list[list[int]] = []

    async def refuse_odd(items: Sequence[int]) -> Sequence[int | BaseException]:
        batches.append(list(items))
        return [ValueError(f"{item} is odd") if item % 2 else item * 10 for item in items]

    async with Batcher(refuse_odd, limit=3) as batcher:
        all_at_once, alone = await asyncio.gather(batcher.submit_all([0, 1, 2, 4, 3]), batcher.submit(6))

    assert [str(result) for result in all_at_once] == ["0", "1 is odd", "20", "40", "3 is odd"]
    assert alone == 60
    assert batches == [[0, 1, 2], [4, 3, 6]]


async def test_no_items_need_no_call() -> None:
    async def never(items: Sequence[int]) -> Sequence[int]:
        raise AssertionError(items)

    async with Batcher(never, limit=3) as batcher:
        assert await batcher.submit_all([]) == []


async def test_items_handed_in_together_fail_at_once_with_the_first_call_that_fails() -> None:
    batches: list[list[int]] = []

    async def fail_second(items: Sequence[int]) -> Sequence[int]:
        batches.append(list(items))
        if 2 in items:
            raise ConnectionError("away")
        return items

    async with Batcher(fail_second, limit=2) as batcher:
        with pytest.raises(ConnectionError, match="away"):
            await batcher.submit_all([0, 1, 2, 3, 4, 5])
        assert await batcher.submit(6) == 6

    assert batches == [[0, 1], [2, 3], [6]]


async def test_a_caller_that_gives_up_items_handed_in_together_does_not_disturb_the_others() -> None:
    batches: list[list[int]] = []
    first_is_handled, go_on = asyncio.Event(), asyncio.Event()

    async def wait(items: Sequence[int]) -> Sequence[int]:
        batches.append(list(items))
        first_is_handled.set()
        await go_on.wait()
        return items

    async with Batcher(wait, limit=2) as batcher:
        impatient = asyncio.create_task(batcher.submit_all([1, 2, 3]))
        await first_is_handled.wait()
        patient = asyncio.create_task(batcher.submit_all([4]))
        await asyncio.sleep(0)
        impatient.cancel()
        go_on.set()

        assert await patient == [4]

    assert batches == [[1, 2], [4]]


async def test_items_handed_in_together_are_cancelled_when_it_ends() -> None:
    async def never(items: Sequence[int]) -> Sequence[int]:
        await asyncio.Event().wait()
        return items

    async with Batcher(never, limit=1) as batcher:
        waiting = asyncio.create_task(batcher.submit_all([1, 2]))
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_may_wait_goes_with_the_next_that_may_not_in_the_order_in_which_they_came() -> None:
    batches: list[list[int]] = []

    async def note(items: Sequence[int]) -> Sequence[int]:
        batches.append(list(items))
        return items

    async with Batcher(note, limit=10) as batcher:
        patient = batcher.hand_in(1, within=timedelta(minutes=1))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not patient.done()

        await batcher.submit(2)

        assert await patient == 1
    assert batches == [[1, 2]]


async def test_what_may_wait_goes_alone_when_its_time_is_over_or_when_it_is_hurried() -> None:
    async def echo(items: Sequence[int]) -> Sequence[int]:
        return items

    async with Batcher(echo, limit=10) as batcher:
        assert await asyncio.wait_for(batcher.hand_in(1, within=timedelta(seconds=0.01)), 5) == 1
        assert await asyncio.wait_for(batcher.hand_in(2, within=timedelta(seconds=0.01)), 5) == 2

        hurried = batcher.hand_in(3, within=timedelta(minutes=1))
        batcher.hurry()
        assert await asyncio.wait_for(hurried, 5) == 3


async def test_a_full_batch_waits_for_no_more() -> None:
    async def echo(items: Sequence[int]) -> Sequence[int]:
        return items

    async with Batcher(echo, limit=2) as batcher:
        waiting = [batcher.hand_in(item, within=timedelta(minutes=1)) for item in range(2)]

        assert await asyncio.wait_for(asyncio.gather(*waiting), 5) == [0, 1]


async def test_nobody_waits_for_a_batch_that_failed_as_a_whole() -> None:
    async def fail(items: Sequence[int]) -> Sequence[int]:
        raise ConnectionError("away")

    async with Batcher(fail, limit=10) as batcher:
        done, _ = await asyncio.wait([batcher.hand_in(item) for item in range(3)], timeout=5)

    assert [type(one.exception()) for one in done] == [ConnectionError] * 3
