"""Listen to the orchestrator: grants, refusals, renewals, what was stored and heard, and orders."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never
from uuid import UUID

from agents.attempts import Attempts
from agents.availability import Availability
from agents.claimer import Claimer, Reception
from agents.clock_watch import ClockWatch
from agents.handover import Handover
from agents.hearing import Hearing
from agents.own_queues import declare_if_allowed
from agents.renew import LeaseRenewer
from agents.results import handed_back
from agents.spool_lines import Key, WrittenResult
from agents.standing_claimer import StandingClaimer
from agents.trust import Trust
from agents.unreadable import Undertaker
from agents.used_claims import UsedClaims
from common.broker.base import Broker, Consumer, Delivery
from common.broker.topology import control_queue
from common.clock import Clock
from common.loop import Health, keep_running
from common.messages import CancelTask, GrantedTask, Renewed, Stored
from common.orders import Drain, Heard, Leave, Order, Pause, Resume, TrustKeys
from common.protocol import ControlEnvelope, GrantEnvelope, RefusalEnvelope, UnreadableMessage, decode

log = logging.getLogger(__name__)

PREFETCH = 64


class ControlListener:
    """Reads `control.<agent_id>`. Nothing here waits for anything but the queue, so that orders are never late."""

    def __init__(
        self,
        broker: Broker,
        agent_id: UUID,
        *,
        claimer: Claimer,
        standing: StandingClaimer,
        leases: LeaseRenewer,
        attempts: Attempts,
        handover: Handover,
        hearing: Hearing,
        availability: Availability,
        undertaker: Undertaker,
        trust: Trust | None,
        used: UsedClaims,
        clock: Clock,
        clocks: ClockWatch,
        health: Health,
        kill_grace: timedelta,
        started_at: datetime,
        boot_id: UUID,
    ) -> None:
        self._broker = broker
        self._started_at = started_at
        self._boot_id = boot_id
        self._agent_id = agent_id
        self._claimer = claimer
        self._standing = standing
        self._leases = leases
        self._attempts = attempts
        self._handover = handover
        self._hearing = hearing
        self._availability = availability
        self._undertaker = undertaker
        self._trust = trust
        self._used = used
        self._clock = clock
        self._clocks = clocks
        self._health = health
        self._kill_grace = kill_grace.total_seconds()
        self._listening: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as group:

            async def listen() -> None:
                self._listening = asyncio.create_task(self._listen(group), name="control consumer")
                try:
                    await asyncio.wait({self._listening})
                finally:
                    self._listening.cancel()
                    await asyncio.gather(self._listening, return_exceptions=True)
                if not self._listening.cancelled():
                    self._listening.result()

            await keep_running("control", listen, health=self._health)

    def reopen(self) -> None:
        """Throw the consumer away and open a new one."""
        if self._listening is not None:
            self._listening.cancel()

    async def _listen(self, group: asyncio.TaskGroup) -> None:
        queue = control_queue(self._agent_id)
        await declare_if_allowed(self._broker, queue)
        async with self._broker.consume(queue.name, prefetch=PREFETCH) as consumer:
            while True:
                deliveries = await consumer.receive(PREFETCH)
                understood = [delivery for delivery in deliveries if await self._obey(consumer, delivery, group)]
                await consumer.ack(*understood)

    async def _obey(self, consumer: Consumer, delivery: Delivery, group: asyncio.TaskGroup) -> bool:
        """Do what a message says; False when it was unreadable and is a dead letter now."""
        try:
            envelope = decode(delivery.body)
        except UnreadableMessage as error:
            log.warning("control.unreadable", extra={"reason": str(error)})
            await self._bury(consumer, delivery, str(error))
            return False
        match envelope:
            case GrantEnvelope():
                self._standing.allow(envelope.payload.most_standing)
                for grant in envelope.payload.tasks:
                    self._take_grant(grant, envelope.payload.signature, group)
            case RefusalEnvelope():
                for refusal in envelope.payload.tasks:
                    self._claimer.refused(refusal)
            case ControlEnvelope():
                self._follow(envelope.payload.order, ordered_at=envelope.timestamp)
            case _:
                reason = f"type: an agent's control queue takes grant, refusal and control, not {envelope.type}"
                log.warning("control.unexpected", extra={"reason": reason})
                await self._bury(consumer, delivery, reason)
                return False
        return True

    async def _bury(self, consumer: Consumer, delivery: Delivery, reason: str) -> None:
        await self._undertaker.bury(consumer, delivery, reason, queue=control_queue(self._agent_id).name)

    def _follow(self, order: Order, *, ordered_at: datetime) -> None:
        match order:
            case CancelTask():
                self._cancel(order)
            case Renewed():
                self._leases.answered(order)
            case Stored():
                self._handover.stored(order.results)
            case Heard(beat_id=beat_id):
                self._hearing.heard(at=self._clock.monotonic())
                self._clocks.heard(beat_id, at=ordered_at)
            case Pause() | Drain() | Resume() | Leave():
                self._hold_back(order, ordered_at=ordered_at)
            case TrustKeys(signatures=signatures):
                self._follow_keys(signatures)
            case _:
                assert_never(order)

    def _hold_back(self, order: Pause | Drain | Resume | Leave, *, ordered_at: datetime) -> None:
        """Take work or take none, as ordered. An order that names another process of this agent is for that one."""
        match order:
            case Pause():
                self._availability.pause(order.until, ordered_at=ordered_at, note=order.note)
            case Drain(started_at=started_at) if started_at != self._started_at:
                log.info("drain.of_an_earlier_process", extra={"started_at": started_at.isoformat()})
            case Drain():
                self._availability.drain(order.note)
            case Resume():
                self._availability.resume()
            case Leave() if order.boot_id == self._boot_id:
                self._availability.refuse(order.reason)
            case Leave():
                log.warning("agent.two_processes", extra={"refused": order.boot_id, "reason": order.reason})

    def _follow_keys(self, signatures: Sequence[str]) -> None:
        if self._trust is None:
            return
        try:
            self._trust.follow(signatures, now=self._clock.now(), skew=self._clocks.skew)
        except OSError as failure:  # the next heartbeat is answered with the same
            log.error("trust.not_kept", extra={"reason": str(failure)})  # noqa: TRY400

    def _cancel(self, order: CancelTask) -> None:
        attempt = self._attempts.cancel(order.task_id, order.fence, grace=self._kill_grace)
        if attempt is not None:
            log.info("cancel.ordered", extra={"task_id": order.task_id, "trace_id": attempt.grant.trace_id})
        elif self._attempts.find(order.task_id, order.fence) is None:
            log.info("cancel.not_running", extra={"task_id": order.task_id})

    def _take_grant(self, grant: GrantedTask, signature: str | None, group: asyncio.TaskGroup) -> None:
        if self._handover.owes(Key(grant.work.task_id, grant.fence)):
            # An earlier life of this agent began it, so it is anything but untouched; how it ended is on its way.
            _log_earlier_life(grant)
            return
        match self._claimer.granted(grant, signature):
            case Reception.LATE if self._used.is_of_earlier_life(grant.claim_id):
                _log_earlier_life(grant)
            case Reception.LATE:
                # No slot waits for it; said at once, so that the task need not wait for the end of the lease.
                log.warning("grant.late", extra={"task_id": grant.work.task_id, "trace_id": grant.trace_id})
                group.create_task(self._hand_back(grant), name="hand_back")
            case Reception.FORGED:
                log.warning("grant.forged", extra={"task_id": grant.work.task_id, "fence": grant.fence})
            case Reception.AWAITED | Reception.DUPLICATE:
                pass

    async def _hand_back(self, grant: GrantedTask) -> None:
        was_cancelled = self._attempts.was_cancelled(grant.work.task_id, grant.fence)
        result = WrittenResult.of(handed_back(self._agent_id, grant, was_cancelled=was_cancelled))
        try:
            await self._handover.hand_over(result)
        except Exception:  # the lease ends by itself; the agent lives on
            log.exception("grant.not_handed_back", extra={"task_id": grant.work.task_id})


def _log_earlier_life(grant: GrantedTask) -> None:
    log.info("grant.of_earlier_life", extra={"task_id": grant.work.task_id, "fence": grant.fence})
