"""A ticket for this agent alone is settled whatever happens to the slot that takes it."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from agents.consumer import _receive
from agents.mailbox import Letter, Mailbox
from common.broker.base import BrokerUnavailable, Consumer, Delivery


class PoolConsumer:
    """Breaks when it is told to."""

    def __init__(self) -> None:
        self.broken: asyncio.Future[Sequence[Delivery]] = asyncio.get_running_loop().create_future()

    async def receive(self, limit: int = 1) -> Sequence[Delivery]:
        return await self.broken


class OwnConsumer:
    def __init__(self) -> None:
        self.settled: list[str] = []

    async def ack(self, *deliveries: Delivery) -> None:
        self.settled.append("ack")

    async def requeue(self, *deliveries: Delivery) -> None:
        self.settled.append("requeue")


def a_delivery() -> Delivery:
    return Delivery(b"", "1", 3, redelivered=False, headers={}, tag=None)


@pytest.mark.parametrize("later", range(8))
async def test_a_ticket_that_comes_while_the_pool_breaks_is_settled(later: int) -> None:
    mailbox = Mailbox(*[cast("Any", None)] * 5)
    pool, own, turn = PoolConsumer(), OwnConsumer(), asyncio.Event()
    slot = asyncio.create_task(_receive(cast("Consumer", pool), mailbox, turn))
    await asyncio.sleep(0)
    pool.broken.set_exception(BrokerUnavailable("gone"))
    for _ in range(later):
        await asyncio.sleep(0)
    offer = asyncio.create_task(mailbox._offer(Letter(a_delivery(), cast("Consumer", own), cast("Any", None)), turn))
    try:
        _, letter = await slot
    except BrokerUnavailable:
        letter = None
    if letter is not None:
        await letter.ack()
    turn.set()

    async with asyncio.timeout(5):
        await offer

    assert len(own.settled) == 1
