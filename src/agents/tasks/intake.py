"""Take in the work that was leased to this agent, from its own queue.

A task that was leased to this process begins at once, or as soon as a slot is free. One that the process cannot use
goes back untouched, so that it need not wait for the end of its lease.
"""

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Protocol
from uuid import UUID

from agents.attempts.begun import Begun
from agents.attempts.owned import Attempt, Attempts
from agents.attempts.stopping import StopReason
from agents.disk.spool_lines import Key, WrittenResult
from agents.gate.signature_check import SignatureCheck
from agents.link.listening import Listener
from agents.link.unreadable import Undertaker
from agents.tasks.availability import Availability
from agents.tasks.handover import Handover
from agents.tasks.results import handed_back
from agents.tasks.slots import Slots
from common.broker.base import Broker, Queue
from common.clock import Clock
from common.loop import Health, Wake
from common.messages import Grant, GrantedTask
from common.protocol import Envelope, UnreadableMessage, WorkRequestEnvelope

log = logging.getLogger(__name__)

# How long work waits for a slot, in seconds: the result that asked for it may still be on its way to the disk.
PATIENCE = 5.0
# No grant is sent again when so many others came after it.
REMEMBERED = 200_000


class Asked(Protocol):
    """The account of what this process asked for."""

    def claim_of(self, grant: GrantedTask) -> UUID | None:
        """Return the session or claim that a grant must answer; None when this process did not ask for it."""
        ...

    def asked_at(self, grant: GrantedTask, number: int | None) -> float | None:
        """Return since when the lease counts, on the monotonic clock; None when that is not known.

        `number` is that of the message that asked for it.
        """
        ...


class Intake:
    """Begins what comes, each attempt once. `work_ended` is called when one has ended and no result says so."""

    def __init__(
        self,
        broker: Broker,
        agent_id: UUID,
        queue: Queue,
        run: Callable[[Attempt], Coroutine[Any, Any, None]],
        slots: Slots,
        asked: Asked,
        *,
        attempts: Attempts,
        handover: Handover,
        begun: Begun,
        signatures: SignatureCheck,
        availability: Availability,
        clock: Clock,
        undertaker: Undertaker,
        health: Health,
        work_ended: Callable[[], None],
    ) -> None:
        self._agent_id = agent_id
        self._run = run
        self._slots = slots
        self._asked = asked
        self._attempts = attempts
        self._handover = handover
        self._begun = begun
        self._signatures = signatures
        self._availability = availability
        self._clock = clock
        self._work_ended = work_ended
        self._seen: OrderedDict[Key, None] = OrderedDict()
        self._working: set[asyncio.Task[None]] = set()
        self._idle = Wake()
        self._listener = Listener("work", broker, queue, self._obey, undertaker=undertaker, health=health)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, and nothing is on its way back."""
        return not self._working

    async def run(self) -> None:
        """Take work in until cancelled, and then stop what still runs."""
        try:
            await self._listener.run()
        finally:
            await self.stop()

    def reopen(self) -> None:
        """Throw the consumer away and open a new one."""
        self._listener.reopen()

    async def ended(self, *, within: float) -> bool:
        """Wait until all work has ended; False when it takes too long."""
        try:
            async with asyncio.timeout(within):
                while self._working:
                    await self._idle.rung()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Cancel what still runs, and return when it has ended."""
        working = list(self._working)
        for one in working:
            one.cancel()
        await asyncio.gather(*working, return_exceptions=True)

    def _obey(self, envelope: Envelope) -> None:
        if not isinstance(envelope, WorkRequestEnvelope):
            raise UnreadableMessage(f"type: an agent's work queue takes work_request, not {envelope.type}")
        for grant in envelope.payload.tasks:
            self._take(grant, envelope.payload)

    def _take(self, grant: GrantedTask, message: Grant) -> None:
        key = Key(grant.work.task_id, grant.attempt)
        if self._is_known(key):
            return
        if self._asked.claim_of(grant) != grant.claim_id:
            if self._is_genuine(grant, message):
                self._see(key)
                self._leave(key, grant)
            return
        self._see(key)
        self._slots.receive(message.granted)
        now, asked_at = self._clock.monotonic(), self._asked_at(grant, message)
        attempt = Attempt.granted(grant, asked_at=asked_at, signature=message.signature, credit=message.credit)
        if now >= attempt.lease_until or not self._availability.is_open:
            self._slots.end(attempt)
            if self._is_genuine(grant, message):
                self._hand_back(grant)
            return
        if now - asked_at > grant.lease_seconds / 2:
            attempt.renewed = asyncio.Event()
        # Known from here on, so that a cancel that follows in the same breath finds it.
        self._attempts.add(attempt)
        self._spawn(self._work(attempt), name="work")

    def _is_known(self, key: Key) -> bool:
        """Return whether an attempt came before, to this process or to an earlier one that began it."""
        if key in self._seen:
            log.debug("grant.repeated", extra={"task_id": key.task_id, "attempt": key.attempt})
            return True
        if self._handover.owes(key) or self._begun.is_of_earlier_life(key):
            # It is anything but untouched; how it ended is on its way, or known.
            log.info("grant.of_earlier_life", extra={"task_id": key.task_id, "attempt": key.attempt})
            return True
        return False

    def _leave(self, key: Key, grant: GrantedTask) -> None:
        """Leave alone what was leased to an earlier process; it goes back if that certainly did not begin it."""
        if self._begun.is_certain_of(grant.claim_id):
            self._hand_back(grant)
        else:
            log.warning("grant.of_another_process", extra={"task_id": key.task_id, "attempt": key.attempt})

    def _asked_at(self, grant: GrantedTask, message: Grant) -> float:
        """Return since when a lease counts: one of which that is not known is over."""
        asked_at = self._asked.asked_at(grant, message.credit)
        return -math.inf if asked_at is None else asked_at

    def _see(self, key: Key) -> None:
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _is_genuine(self, grant: GrantedTask, message: Grant) -> bool:
        """Return whether the orchestrator can be told that a grant is not used; a forged one is nothing at all."""
        is_genuine = self._signatures.is_genuine(grant, message.signature, message.credit)
        if not is_genuine:
            log.warning("grant.forged", extra={"task_id": grant.work.task_id, "attempt": grant.attempt})
        return is_genuine

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        working = asyncio.create_task(work, name=name)
        self._working.add(working)
        working.add_done_callback(self._over)

    def _over(self, working: asyncio.Task[None]) -> None:
        self._working.discard(working)
        if not self._working:
            self._idle.ring()
        if not self._availability.is_open:
            self._availability.changed.ring()
        if not working.cancelled() and (failure := working.exception()) is not None:
            log.error("work.lost", exc_info=failure)

    async def _work(self, attempt: Attempt) -> None:
        """Run an attempt in a slot, and report how it ended."""
        has_slot = False
        try:
            # What waits for something else than a slot takes none: others can use it.
            await self._signatures.key_news(attempt.signature)
            await self._renewed(attempt)
            has_slot = attempt.stop.reason is None and await self._has_slot()
            if not has_slot:
                attempt.stop.order(StopReason.NO_SLOT, grace=0)
            await self._run(attempt)
        finally:
            # The lease is kept until the broker has the result: one that comes after its end counts for nothing.
            self._attempts.remove(attempt)
            if has_slot:
                self._slots.release()
            if self._slots.end(attempt):
                self._work_ended()

    async def _renewed(self, attempt: Attempt) -> None:
        """Wait until a lease that is old when it comes was renewed, or is over: then the attempt is stopped."""
        if attempt.renewed is None:
            return
        waiting = [asyncio.ensure_future(attempt.renewed.wait()), asyncio.ensure_future(attempt.stop.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _has_slot(self) -> bool:
        """Take the next slot that is free; False when none is for long."""
        if self._slots.is_one_free:
            await self._slots.take()
            return True
        try:
            async with asyncio.timeout(PATIENCE):
                await self._slots.take()
        except TimeoutError:
            return False
        return True

    def _hand_back(self, grant: GrantedTask) -> None:
        # Said at once, so that the task need not wait for the end of the lease.
        log.warning("grant.late", extra={"task_id": grant.work.task_id, "trace_id": grant.trace_id})
        self._spawn(self._say_handed_back(grant), name="hand back")

    async def _say_handed_back(self, grant: GrantedTask) -> None:
        was_cancelled = self._attempts.was_cancelled(grant.work.task_id, grant.attempt)
        result = WrittenResult.of(handed_back(self._agent_id, grant, was_cancelled=was_cancelled))
        try:
            await self._handover.hand_over(result)
        except Exception:  # the lease ends by itself; the agent lives on
            log.exception("grant.not_handed_back", extra={"task_id": grant.work.task_id})
