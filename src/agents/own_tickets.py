"""Tickets that are for this agent alone, from its own queue: whichever slot is idle takes the next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from agents.availability import Availability
from agents.own_queues import declare_if_allowed
from agents.unreadable import Undertaker
from common.broker.base import Broker, BrokerUnavailable, Consumer, Delivery, Queue
from common.loop import Health, keep_running


@dataclass(slots=True, eq=False)
class OwnTicket:
    """A ticket that waits for a slot. Its taker settles it, in one of the three ways."""

    delivery: Delivery
    _consumer: Consumer
    _bury: Callable[[Consumer, Delivery, str], Awaitable[None]]
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    async def ack(self) -> None:
        with suppress(BrokerUnavailable):  # it comes again, and a claim says that it is used up
            await self._consumer.ack(self.delivery)
        self.settled.set()

    async def requeue(self) -> None:
        with suppress(BrokerUnavailable):
            await self._consumer.requeue(self.delivery)
        self.settled.set()

    async def dead_letter(self, reason: str) -> None:
        with suppress(BrokerUnavailable):
            await self._bury(self._consumer, self.delivery, reason)
        self.settled.set()


class OwnTickets:
    """Holds one ticket of the agent's own queue at a time, while the agent may work."""

    def __init__(
        self, broker: Broker, queue: Queue, availability: Availability, health: Health, undertaker: Undertaker
    ) -> None:
        self._broker = broker
        self._queue = queue
        self._availability = availability
        self._health = health
        self._undertaker = undertaker
        self._tickets: asyncio.Queue[OwnTicket] = asyncio.Queue()

    async def next(self) -> OwnTicket:
        """Wait for a ticket, which is the caller's to settle; being cancelled loses none."""
        ticket = await self._tickets.get()
        ticket.taken.set()
        return ticket

    async def run(self) -> None:
        """Receive until cancelled."""
        await keep_running("own_tickets", self._consume, health=self._health)

    async def _consume(self) -> None:
        await self._availability.opened()
        turn = self._availability.turn
        await declare_if_allowed(self._broker, self._queue)
        self._health.well("own_tickets")
        async with self._broker.consume(self._queue.name, prefetch=1) as consumer:
            while not turn.is_set():
                for delivery in await receive(consumer, turn):
                    await self._offer(OwnTicket(delivery, consumer, self._bury), turn)

    async def _bury(self, consumer: Consumer, delivery: Delivery, reason: str) -> None:
        await self._undertaker.bury(consumer, delivery, reason, queue=self._queue.name)

    async def _offer(self, ticket: OwnTicket, turn: asyncio.Event) -> None:
        """Wait until a slot has dealt with a ticket; take it back when the agent's turn is over before that."""
        self._tickets.put_nowait(ticket)
        taken, over = asyncio.ensure_future(ticket.taken.wait()), asyncio.ensure_future(turn.wait())
        try:
            await asyncio.wait({taken, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in (taken, over):
                waiting.cancel()
            await asyncio.gather(taken, over, return_exceptions=True)
        if ticket.taken.is_set():
            await ticket.settled.wait()
        else:
            self._tickets.get_nowait()
            await ticket.requeue()


async def receive(consumer: Consumer, turn: asyncio.Event) -> Sequence[Delivery]:
    """Wait for a ticket; none when the turn is over, and then a ticket that came in the same moment goes back."""
    receiving = asyncio.ensure_future(consumer.receive())
    over = asyncio.ensure_future(turn.wait())
    try:
        await asyncio.wait({receiving, over}, return_when=asyncio.FIRST_COMPLETED)
        return () if turn.is_set() else receiving.result()
    finally:
        for waiting in (receiving, over):
            waiting.cancel()
        await asyncio.gather(receiving, over, return_exceptions=True)
