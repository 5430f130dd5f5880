"""A message that cannot be read is forgotten when it is reported, and not before."""

from uuid import UUID

import pytest

from agents.link.unreadable import Undertaker
from common.broker.base import BrokerUnavailable, Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import REPLY_QUEUES, RESULTS, control_address, control_queue

AGENT = UUID(int=7)
QUEUE = control_queue(AGENT)


class Sometimes(MemoryBroker):
    """Takes nothing while it `is_away`."""

    is_away = False

    async def publish(self, *messages: Outgoing) -> None:
        if self.is_away:
            raise BrokerUnavailable("away")
        await super().publish(*messages)


async def bury_what_waits(broker: MemoryBroker) -> None:
    async with broker.consume(QUEUE.name, prefetch=1) as consumer:
        [delivery] = await consumer.receive()
        await Undertaker(broker, AGENT).bury(consumer, delivery, "no JSON", queue=QUEUE.name)


async def test_a_message_that_cannot_be_read_is_not_forgotten_before_it_is_reported() -> None:
    broker = Sometimes()
    await broker.declare(*REPLY_QUEUES, QUEUE)
    await broker.publish(Outgoing(control_address(AGENT), b"{", "control"))
    broker.is_away = True
    with pytest.raises(BrokerUnavailable):
        await bury_what_waits(broker)
    assert await broker.depth(QUEUE.name) == 1
    broker.is_away = False

    await bury_what_waits(broker)

    assert await broker.depth(QUEUE.name) == 0
    assert await broker.depth(RESULTS) == 1
