"""Whoever is cancelled while it leaves a consumer, in whatever moment, is cancelled, and does not go on as if not."""

import asyncio
from contextlib import suppress

import pytest

from common.broker.base import Broker, Queue

# Leaving takes fewer turns of the event loop up to where it waits for a server.
MOMENTS = 12


@pytest.mark.parametrize("has_heard", [False, True])
async def test_being_cancelled_while_a_consumer_is_closed_is_not_lost(
    broker: Broker, queue: Queue, has_heard: bool
) -> None:
    for turns in range(MOMENTS):
        leaving = asyncio.Event()

        async def consume_and_stay(leaving: asyncio.Event) -> None:
            async with broker.consume(queue.name, prefetch=1) as consumer:
                if has_heard:
                    await consumer.cancel()
                leaving.set()
            await asyncio.Event().wait()

        staying = asyncio.create_task(consume_and_stay(leaving))
        await leaving.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        staying.cancel()

        await asyncio.wait({staying}, timeout=10)

        assert staying.cancelled(), f"it goes on when it is cancelled {turns} turns of the loop later"


async def test_a_consumer_that_is_left_while_it_subscribes_leaves_the_connection_to_the_others(
    broker: Broker, queue: Queue
) -> None:
    before = broker.generation
    for quarters in range(4 * MOMENTS):
        with suppress(TimeoutError):
            async with broker.consume(queue.name, prefetch=1), asyncio.timeout(quarters / 4000):
                await asyncio.Event().wait()

        async with asyncio.timeout(2):
            await broker.depth(queue.name)

    assert broker.generation == before
