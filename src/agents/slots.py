"""All slots of an agent: who serves them, and who gets the next that is free.

Slots share lanes, so that tickets that come together are dealt with together. Tickets for this agent alone come
from a queue of their own; one of them needs a slot that no lane's consumer has promised to the pool. Work that was
claimed in advance runs beside the lanes; when it lasts, and a lane's ticket finds no slot, the lanes become smaller.
"""

import asyncio
import logging
from datetime import timedelta

from agents.claimer import ClaimUnanswered
from agents.given import GivenWork
from agents.intake import Intake
from agents.lane import Lane
from agents.own_tickets import OwnTicket, OwnTickets
from common.backoff import full_jitter
from common.loop import FIRST_PAUSE, LONGEST_PAUSE
from common.protocol import UnreadableMessage

log = logging.getLogger(__name__)

# How long lanes that became many stay so: each is a channel at the broker, and deals with little at a time.
TOGETHER_AFTER = 5.0
# How often a ticket of the agent's own that waits for a slot sees whether the agent still takes work, in seconds.
OWN_PATIENCE = 1.0


class Slots:
    """Runs one task in each slot at a time, until the agent stops. `most_in_a_lane`: as many share one consumer."""

    def __init__(
        self, count: int, intake: Intake, *, own_tickets: OwnTickets | None, most_in_a_lane: int, given: GivenWork
    ) -> None:
        self._intake = intake
        self._given = given
        given.ended = self._given_ended
        # How many of the slots are kept from the lanes because of it.
        self._kept = 0
        self._is_short = False
        self._own_tickets = own_tickets
        self._most_in_a_lane = most_in_a_lane
        self._free = count
        self._lanes: dict[Lane, asyncio.Task[None]] = {}
        self._own: set[asyncio.Task[None]] = set()
        # Set while a ticket of the agent's own waits for a slot.
        self._wanting: asyncio.Future[None] | None = None
        self._opening: asyncio.Handle | None = None
        self._uniting: asyncio.TimerHandle | None = None
        self._failures = 0
        self._is_over = False
        self._ended = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether no slot holds a ticket or work."""
        return not (self._own or self._given) and all(lane.is_idle for lane in self._lanes)

    async def run(self) -> None:
        """Take tickets until the agent stops, and finish the last ones. Being cancelled stops all work, too."""
        serving = (
            None if self._own_tickets is None else asyncio.create_task(self._serve_own(self._own_tickets), name="own")
        )
        self._open()
        try:
            await self._intake.availability.stopped()
            # With nothing to finish, waiting for a broker that may be away has no use.
            for lane, task in self._lanes.items():
                if lane.is_idle:
                    task.cancel()
            while self._lanes or self._own or self._given:
                self._ended.clear()
                await self._ended.wait()
        finally:
            self._is_over = True
            for handle in (self._opening, self._uniting):
                if handle is not None:
                    handle.cancel()
            left = [*self._lanes.values(), *self._own, *([] if serving is None else [serving])]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, self._given.stop(), return_exceptions=True)

    def _open(self) -> None:
        """Give the free slots to new lanes."""
        self._opening = None
        if self._is_short:
            keep = max(0, min(self._free, len(self._given) - self._kept))
            self._free -= keep
            self._kept += keep
            self._is_short = False
        while self._free and not self._intake.availability.is_stopping:
            size = min(self._free, self._most_in_a_lane)
            self._free -= size
            lane = Lane(
                size,
                self._intake,
                freed=self._freed,
                is_slot_wanted=self._is_slot_wanted,
                lacks_slots=self._lacks_slots,
            )
            self._lanes[lane] = asyncio.create_task(self._keep(lane), name="lane")
        if len(self._lanes) > 1 and self._most_in_a_lane > 1 and self._uniting is None:
            self._uniting = asyncio.get_running_loop().call_later(TOGETHER_AFTER, self._unite)

    async def _keep(self, lane: Lane) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            await lane.run()
            self._failures = 0
        except Exception:
            lasted = clock() - began > LONGEST_PAUSE.total_seconds()
            self._failures = 1 if lasted else self._failures + 1
            log.exception("slot.failed", extra={"failures": self._failures})
        finally:
            del self._lanes[lane]
            self._freed(lane.slots)
            self._ended.set()

    def _freed(self, slots: int) -> None:
        """Take slots back."""
        if slots and self._is_slot_wanted():
            assert self._wanting is not None
            self._wanting.set_result(None)
            slots -= 1
        self._free += slots
        if self._free and self._opening is None and not self._is_over:
            pause = full_jitter(self._failures, base=FIRST_PAUSE, cap=LONGEST_PAUSE) if self._failures else timedelta()
            # In the next turn at the earliest, so that slots that become free together get a lane together.
            self._opening = asyncio.get_running_loop().call_later(pause.total_seconds(), self._open)

    def _lacks_slots(self) -> None:
        self._is_short = True

    def _given_ended(self) -> None:
        if self._kept > len(self._given):
            self._kept -= 1
            self._freed(1)
        self._ended.set()

    def _unite(self) -> None:
        """Close lanes that have nothing to do, so that their slots get one together."""
        self._uniting = None
        idle = [lane for lane in self._lanes if lane.is_idle and not lane.is_closing]
        if len(idle) > 1:
            for lane in idle:
                lane.close()
        elif len(self._lanes) > 1:
            self._uniting = asyncio.get_running_loop().call_later(TOGETHER_AFTER, self._unite)

    async def _serve_own(self, own_tickets: OwnTickets) -> None:
        while True:
            ticket = await own_tickets.next()
            try:
                is_free = await self._next_slot()
            except BaseException:
                await ticket.requeue()
                raise
            if is_free:
                own = asyncio.create_task(self._take_own(ticket), name="own ticket")
                self._own.add(own)
                own.add_done_callback(self._served_own)
            else:
                await ticket.requeue()

    async def _next_slot(self) -> bool:
        """Take a slot from the lanes, the next that is free; False when the turn is over before there is one."""
        if self._free:
            self._free -= 1
            return True
        self._wanting = wanting = asyncio.get_running_loop().create_future()
        # The pool gives nothing more to a lane that is closed. The smallest can be missed best.
        if with_idle := [lane for lane in self._lanes if lane.idle]:
            min(with_idle, key=lambda lane: lane.slots).close()
        over = asyncio.create_task(self._intake.availability.turn.wait(), name="turn")
        try:
            await asyncio.wait({wanting, over}, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            if wanting.done():
                self._free += 1
            raise
        finally:
            self._wanting = None
            over.cancel()
        return wanting.done()

    def _is_slot_wanted(self) -> bool:
        return self._wanting is not None and not self._wanting.done()

    async def _take_own(self, ticket: OwnTicket) -> None:
        # It is for this agent alone, so it waits for whatever else has taken the slot.
        while not await self._intake.capacity.take_within(OWN_PATIENCE):
            if not self._intake.availability.is_open:
                await ticket.requeue()
                return
        try:
            await self._claim_and_work(ticket)
        finally:
            self._intake.capacity.release()

    async def _claim_and_work(self, ticket: OwnTicket) -> None:
        try:
            attempt = await self._intake.claim(ticket.delivery.body)
        except UnreadableMessage as error:
            log.warning("ticket.unreadable", extra={"reason": str(error)})
            await ticket.dead_letter(str(error))
        except BaseException as error:
            await ticket.requeue()
            if not isinstance(error, ClaimUnanswered):
                raise
        else:
            # Held no longer than until it is decided: whose the task is says the lease.
            await ticket.ack()
            if attempt is not None:
                await self._intake.work(attempt)

    def _served_own(self, own: asyncio.Task[None]) -> None:
        self._own.discard(own)
        self._freed(1)
        self._ended.set()
        if not self._intake.availability.is_open:
            self._intake.availability.changed.ring()
        if not own.cancelled() and (failure := own.exception()) is not None:
            log.error("slot.failed", exc_info=failure)
