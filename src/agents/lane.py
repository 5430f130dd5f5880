"""Takes the tickets of several slots through one consumer, and has their tasks run.

A ticket stays unacknowledged while its work runs, as flow control only: the consumer may hold as many as it has slots,
so the broker gives an agent nothing for which it has no slot. RabbitMQ does not allow that for ever. When work takes
long, the lane stops consuming and settles that ticket early; each of its slots goes to another lane when it is free.
"""

import asyncio
import logging
from collections.abc import Callable

from agents.capacity import PATIENCE
from agents.claimer import ClaimUnanswered
from agents.intake import Intake
from agents.own_queues import declare_if_allowed
from common.broker.base import Consumer, Delivery
from common.protocol import UnreadableMessage

log = logging.getLogger(__name__)


class Lane:
    """Serves `size` slots from when the agent takes work until its turn is over, or `close`.

    When it takes no more tickets it gives back its slots as they become free: `freed` is called with their number. What
    it has not given back when `run` ends is free, too. It closes by itself when one of its slots is free and
    `is_slot_wanted` says that a ticket of the agent's own waits for one, and when work that came another way has taken
    its slots: `lacks_slots` is called then, and the tickets that found none go back to the pool.
    """

    def __init__(
        self,
        size: int,
        intake: Intake,
        *,
        freed: Callable[[int], None],
        is_slot_wanted: Callable[[], bool],
        lacks_slots: Callable[[], None],
    ) -> None:
        self._size = size
        self._intake = intake
        self._freed = freed
        self._is_slot_wanted = is_slot_wanted
        self._lacks_slots = lacks_slots
        self._slots = size
        self._serving: set[asyncio.Task[None]] = set()
        self._held: set[Delivery] = set()
        self._unwanted: list[Delivery] = []
        self._to_ack: list[Delivery] = []
        self._acking: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._takes_no_more = False
        self._changed = asyncio.Event()
        self._failure: Exception | None = None

    @property
    def idle(self) -> int:
        """How many of its slots have neither a ticket nor work."""
        return self._slots - len(self._serving)

    @property
    def is_idle(self) -> bool:
        """Whether it holds neither a ticket nor work, so that cancelling `run` stops nothing."""
        return not self._serving

    @property
    def is_closing(self) -> bool:
        return self._closing.is_set()

    @property
    def slots(self) -> int:
        """How many slots it has not given back."""
        return self._slots

    def close(self) -> None:
        """Take no more tickets; what runs goes on."""
        self._closing.set()

    async def run(self) -> None:
        """Take tickets while the turn lasts, and finish the last ones. Being cancelled stops all work, too.

        Raises, when all work has ended, what made the consumer or the settling of a ticket fail.
        """
        intake = self._intake
        try:
            await intake.availability.opened()
            turn = intake.availability.turn
            await declare_if_allowed(intake.broker, intake.queue)
            async with intake.broker.consume(intake.queue.name, prefetch=self._size) as consumer:
                await self._take_until_over(consumer, turn)
                # First this: an acknowledgement would otherwise bring the next ticket to a slot that is not free.
                await consumer.cancel()
                self._takes_no_more = True
                await self._send_away(consumer)
                self._give_back_idle()
                self._ack(consumer)
                await self._until(lambda: not (self._held or self._acking))
            await self._until(lambda: not self._serving)
            if self._failure is not None:
                raise self._failure
        finally:
            stopped = [*self._serving, *([] if self._acking is None else [self._acking])]
            for task in stopped:
                task.cancel()
            await asyncio.gather(*stopped, return_exceptions=True)

    async def _take_until_over(self, consumer: Consumer, turn: asyncio.Event) -> None:
        waiting: list[asyncio.Task[object]] = [
            asyncio.create_task(self._receive(consumer, turn), name="lane"),
            asyncio.create_task(turn.wait(), name="turn of a lane"),
            asyncio.create_task(self._closing.wait(), name="end of a lane"),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._closing.set()
            for one in waiting:
                one.cancel()
            ends = await asyncio.gather(*waiting, return_exceptions=True)
        if isinstance(ends[0], Exception):
            self._fail(ends[0])

    async def _receive(self, consumer: Consumer, turn: asyncio.Event) -> None:
        while True:
            deliveries = await consumer.receive(self._size)
            if turn.is_set() or self._closing.is_set():  # what came in the same moment goes back
                await consumer.requeue(*deliveries)
                return
            for delivery in deliveries:
                self._held.add(delivery)
                serving = asyncio.create_task(self._serve(consumer, delivery), name="ticket")
                self._serving.add(serving)
                serving.add_done_callback(self._served)

    async def _serve(self, consumer: Consumer, delivery: Delivery) -> None:
        try:
            await self._decide(consumer, delivery)
        except Exception as failure:  # of the broker: what is not settled comes back with the consumer's end
            self._held.discard(delivery)
            self._fail(failure)

    async def _decide(self, consumer: Consumer, delivery: Delivery) -> None:
        if not await self._intake.capacity.take_within(PATIENCE):
            self._unwanted.append(delivery)
            self._lacks_slots()
            self._closing.set()
            if self._takes_no_more:
                await self._send_away(consumer)
            return
        try:
            await self._claim_and_work(consumer, delivery)
        finally:
            self._intake.capacity.release()

    async def _send_away(self, consumer: Consumer) -> None:
        """Give back the tickets that found no slot; only when no other can follow, for they would come again."""
        unwanted, self._unwanted = self._unwanted, []
        await consumer.requeue(*unwanted)
        self._held.difference_update(unwanted)
        self._changed.set()

    async def _claim_and_work(self, consumer: Consumer, delivery: Delivery) -> None:
        intake = self._intake
        try:
            attempt = await intake.claim(delivery.body)
        except UnreadableMessage as error:
            log.warning("ticket.unreadable", extra={"reason": str(error)})
            await intake.undertaker.bury(consumer, delivery, str(error), queue=intake.queue.name)
            self._held.discard(delivery)
        except ClaimUnanswered:
            await consumer.requeue(delivery)
            self._held.discard(delivery)
        else:
            if attempt is not None:
                hold = intake.ticket_hold.total_seconds()
                overdue = asyncio.get_running_loop().call_later(hold, self._hold_no_longer, consumer, delivery)
                try:
                    await intake.work(attempt)
                finally:
                    overdue.cancel()
            self._settle(consumer, delivery)

    def _served(self, serving: asyncio.Task[None]) -> None:
        self._serving.discard(serving)
        self._changed.set()
        if self._takes_no_more:
            self._give_back_idle()
        elif self._is_slot_wanted():
            self._closing.set()
        if not self._intake.availability.is_open:
            self._intake.availability.changed.ring()

    def _hold_no_longer(self, consumer: Consumer, delivery: Delivery) -> None:
        self._closing.set()
        self._settle(consumer, delivery, is_early=True)

    def _settle(self, consumer: Consumer, delivery: Delivery, *, is_early: bool = False) -> None:
        """Acknowledge a ticket, together with others; early, only when nothing can follow it."""
        if delivery in self._held:
            self._held.discard(delivery)
            self._to_ack.append(delivery)
        if not is_early or self._takes_no_more:
            self._ack(consumer)

    def _ack(self, consumer: Consumer) -> None:
        if self._to_ack and self._acking is None:
            self._acking = asyncio.create_task(self._ack_all(consumer), name="acknowledge")

    async def _ack_all(self, consumer: Consumer) -> None:
        try:
            while self._to_ack:
                deliveries, self._to_ack = self._to_ack, []
                await consumer.ack(*deliveries)
        except Exception as failure:
            self._fail(failure)
        finally:
            self._acking = None
            self._changed.set()

    def _fail(self, failure: Exception) -> None:
        self._failure = self._failure or failure
        self._closing.set()
        self._changed.set()

    def _give_back_idle(self) -> None:
        idle, self._slots = self.idle, len(self._serving)
        if idle:
            self._freed(idle)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._changed.clear()
            await self._changed.wait()
