"""One slot: takes a ticket, claims its task, has it run, and then takes the next, while the gate is open.

The ticket stays unacknowledged while the work runs, as flow control only: so the broker gives the slot nothing else.
RabbitMQ does not allow that for ever, so after a while the slot stops consuming and settles the ticket early.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from agents.attempts import Attempt
from agents.claimer import Claimer, ClaimUnanswered
from agents.gate import Gate
from agents.mailbox import Letter, Mailbox, receive
from agents.own_queues import declare_if_allowed
from agents.reporter import Reporter
from agents.unreadable import Undertaker
from common.backoff import full_jitter
from common.broker.base import Broker, Consumer, Delivery, Queue
from common.broker.topology import RESULTS
from common.errors import ErrorCode
from common.loop import FIRST_PAUSE, LONGEST_PAUSE
from common.messages import ProtocolError, Ticket
from common.protocol import MOST_TICKET_BYTES, ORCHESTRATOR, ErrorEnvelope, TicketEnvelope, UnreadableMessage, decode

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Intake:
    """What all slots share: where tickets come from and what is done with them."""

    broker: Broker
    agent_id: UUID
    queue: Queue
    work_types: Collection[str]
    claimer: Claimer
    reporter: Reporter
    run: Callable[[Attempt], Coroutine[Any, Any, None]]
    gate: Gate
    undertaker: Undertaker
    ticket_hold: timedelta
    mailbox: Mailbox | None = None


class Slot:
    """Runs one task at a time, until the agent stops."""

    def __init__(self, number: int, intake: Intake) -> None:
        self._number = number
        self._intake = intake
        self._taking = False
        self._work: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the slot holds neither a ticket nor work, so that cancelling `run` stops nothing."""
        return not self._taking and self._work is None

    async def run(self) -> None:
        """Take tickets until the agent stops, and finish the last one. Being cancelled stops its work, too."""
        failures = 0
        try:
            while not self._intake.gate.is_stopping:
                try:
                    await self._intake.gate.opened()
                    await self._consume()
                    failures = 0
                except Exception:
                    failures += 1
                    log.exception("slot.failed", extra={"slot": self._number, "failures": failures})
                    pause = full_jitter(failures, base=FIRST_PAUSE, cap=LONGEST_PAUSE)
                    await asyncio.sleep(pause.total_seconds())
                await self._finish_work()
        finally:
            if self._work is not None:
                self._work.cancel()
                await asyncio.gather(self._work, return_exceptions=True)

    async def _consume(self) -> None:
        """Take tickets from one consumer, until its turn is over or a ticket was settled before its work ended."""
        intake = self._intake
        turn = intake.gate.turn
        if not intake.gate.is_open:
            return
        await declare_if_allowed(intake.broker, intake.queue)
        async with intake.broker.consume(intake.queue.name, prefetch=1) as consumer:
            while self._work is None and not turn.is_set():
                deliveries, letter = await _receive(consumer, intake.mailbox, turn)
                self._taking = True
                try:
                    if letter is not None:
                        await self._take_own(consumer, letter, deliveries)
                        return
                    for delivery in deliveries:
                        await self._take(consumer, delivery)
                finally:
                    self._taking = False
                    self._tell_if_awaited()

    async def _take(self, consumer: Consumer, delivery: Delivery) -> None:
        try:
            envelope = _read_ticket(delivery.body)
        except UnreadableMessage as error:
            log.warning("ticket.unreadable", extra={"reason": str(error)})
            await self._intake.undertaker.bury(consumer, delivery, str(error), queue=self._intake.queue.name)
            return
        if envelope.payload.work_type not in self._intake.work_types:
            await self._refuse(envelope)
            await consumer.ack(delivery)
            return
        try:
            attempt = await self._intake.claimer.claim(envelope.payload)
        except ClaimUnanswered:
            await consumer.requeue(delivery)
            return
        if attempt is not None:
            self._work = asyncio.create_task(self._intake.run(attempt), name=f"work {attempt.task_id}")
            await self._hold(consumer, self._work)
        await consumer.ack(delivery)

    async def _take_own(self, consumer: Consumer, letter: Letter, others: Sequence[Delivery]) -> None:
        """Take a ticket that is for this agent alone. The pool gives this slot nothing meanwhile."""
        try:
            await consumer.cancel()
            await consumer.requeue(*others)
        except BaseException:
            await letter.requeue()
            raise
        try:
            envelope = _read_ticket(letter.delivery.body)
            if envelope.payload.work_type not in self._intake.work_types:
                await self._refuse(envelope)
            elif (attempt := await self._intake.claimer.claim(envelope.payload)) is not None:
                self._work = asyncio.create_task(self._intake.run(attempt), name=f"work {attempt.task_id}")
        except UnreadableMessage as error:
            log.warning("ticket.unreadable", extra={"reason": str(error)})
            await letter.dead_letter(str(error))
        except ClaimUnanswered:
            await letter.requeue()
        finally:
            # Held no longer than until it is decided: whose the task is says the lease.
            if not letter.settled.is_set():
                await letter.ack()

    async def _hold(self, consumer: Consumer, work: asyncio.Task[None]) -> None:
        """Wait for the work, at most as long as a ticket may be held."""
        await asyncio.wait({work}, timeout=self._intake.ticket_hold.total_seconds())
        if work.done():
            await self._finish_work()
        else:
            # In this order: otherwise the acknowledgement would bring the next ticket to a slot that is not free.
            await consumer.cancel()

    async def _finish_work(self) -> None:
        if self._work is None:
            return
        await asyncio.wait({self._work})
        work, self._work = self._work, None
        self._tell_if_awaited()
        if not work.cancelled() and (failure := work.exception()) is not None:
            log.error("work.lost", exc_info=failure, extra={"slot": self._number})

    def _tell_if_awaited(self) -> None:
        if not self._intake.gate.is_open:
            self._intake.gate.changed.ring()

    async def _refuse(self, envelope: TicketEnvelope) -> None:
        """Say that this agent cannot run such work; giving the ticket back would only send it round and round."""
        ticket: Ticket = envelope.payload
        agent_id = str(self._intake.agent_id)
        message = f"Agent {agent_id} has no executor for work type {ticket.work_type!r}."
        log.error("ticket.unsupported", extra={"task_id": ticket.task_id, "reason": message})
        await self._intake.reporter.send(
            RESULTS,
            ErrorEnvelope(
                from_agent=agent_id,
                to_agent=ORCHESTRATOR,
                trace_id=envelope.trace_id,
                request_id=envelope.request_id,
                payload=ProtocolError(
                    error_code=ErrorCode.UNSUPPORTED_WORK_TYPE, error_message=message, about=ticket.task_id
                ),
            ),
        )


async def _receive(
    consumer: Consumer, mailbox: Mailbox | None, turn: asyncio.Event
) -> tuple[Sequence[Delivery], Letter | None]:
    """Wait for a ticket, of the pool or for this agent alone; neither when the turn is over.

    A ticket of the pool that came in the same moment goes back.
    """
    receiving = asyncio.ensure_future(receive(consumer, turn))
    own = None if mailbox is None else asyncio.ensure_future(mailbox.next())
    waiting: set[asyncio.Future[Any]] = {receiving} if own is None else {receiving, own}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        letter = own.result() if own is not None and own.done() else None
        try:
            return (receiving.result() if receiving.done() else ()), letter
        except BaseException:
            if letter is not None:
                await letter.requeue()
            raise
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _read_ticket(body: bytes) -> TicketEnvelope:
    envelope = decode(body, limit=MOST_TICKET_BYTES)
    if not isinstance(envelope, TicketEnvelope):
        raise UnreadableMessage(f"type: a work queue takes work_request, not {envelope.type}")
    return envelope
