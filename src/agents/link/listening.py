"""Read a queue of this agent's own, and do at once what each message says."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from agents.link.unreadable import Undertaker
from common.broker.base import Broker, Consumer, Delivery, NotPermitted, Queue
from common.loop import Health, keep_running
from common.protocol import Envelope, UnreadableMessage, decode

log = logging.getLogger(__name__)

PREFETCH = 64


class Listener:
    """Hands each message to `obey`, which waits for nothing, and then acknowledges it.

    What cannot be read is reported as a dead letter, and so is what `obey` raises `UnreadableMessage` for.
    """

    def __init__(
        self,
        name: str,
        broker: Broker,
        queue: Queue,
        obey: Callable[[Envelope], None],
        *,
        undertaker: Undertaker,
        health: Health,
    ) -> None:
        self._name = name
        self._broker = broker
        self._queue = queue
        self._obey = obey
        self._undertaker = undertaker
        self._health = health
        self._listening: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Listen until cancelled."""
        await keep_running(self._name, self._listen_until_reopened, health=self._health)

    def reopen(self) -> None:
        """Throw the consumer away and open a new one."""
        if self._listening is not None:
            self._listening.cancel()

    async def _listen_until_reopened(self) -> None:
        self._listening = asyncio.create_task(self._listen(), name=f"{self._name} consumer")
        try:
            await asyncio.wait({self._listening})
        finally:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        if not self._listening.cancelled():
            self._listening.result()

    async def _listen(self) -> None:
        await declare_if_allowed(self._broker, self._queue)
        async with self._broker.consume(self._queue.name, prefetch=PREFETCH) as consumer:
            self._health.well(self._name)
            while True:
                deliveries = await consumer.receive(PREFETCH)
                understood = [delivery for delivery in deliveries if await self._understand(consumer, delivery)]
                await consumer.ack(*understood)

    async def _understand(self, consumer: Consumer, delivery: Delivery) -> bool:
        """Do what a message says; False when it is a dead letter now."""
        try:
            self._obey(decode(delivery.body))
        except UnreadableMessage as error:
            log.warning("message.unreadable", extra={"queue": self._queue.name, "reason": str(error)})
            await self._undertaker.bury(consumer, delivery, str(error), queue=self._queue.name)
            return False
        return True


async def declare_if_allowed(broker: Broker, *queues: Queue) -> None:
    """Declare queues, or leave it to the orchestrator: it does so when it hears of the agent, and a consumer waits."""
    with suppress(NotPermitted):
        await broker.declare(*queues)
        return
    log.info("queues.left_to_orchestrator", extra={"queues": [queue.name for queue in queues]})
