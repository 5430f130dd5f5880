"""Listen to the orchestrator: grants, refusals, renewals, and orders to stop."""

import asyncio
import logging
from datetime import timedelta
from uuid import UUID

from agents.attempts import Attempts
from agents.claimer import Claimer, Reception
from agents.renew import LeaseKeeper
from agents.reporter import Reporter
from agents.results import handed_back
from agents.stopping import StopReason
from common.broker.base import Broker, Consumer, Delivery
from common.broker.topology import RESULTS, control_queue
from common.loop import Health, keep_running
from common.messages import CancelTask, Drain, GrantedTask, Heard, Pause, Renewed, Resume, Stored
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
        leases: LeaseKeeper,
        attempts: Attempts,
        reporter: Reporter,
        health: Health,
        kill_grace: timedelta,
    ) -> None:
        self._broker = broker
        self._agent_id = agent_id
        self._claimer = claimer
        self._leases = leases
        self._attempts = attempts
        self._reporter = reporter
        self._health = health
        self._kill_grace = kill_grace.total_seconds()

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as group:

            async def listen() -> None:
                await self._listen(group)

            await keep_running("control", listen, health=self._health)

    async def _listen(self, group: asyncio.TaskGroup) -> None:
        queue = control_queue(self._agent_id)
        await self._broker.declare(queue)
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
            await consumer.dead_letter(delivery, str(error))
            return False
        match envelope:
            case GrantEnvelope():
                for grant in envelope.payload.tasks:
                    self._take_grant(grant, group)
            case RefusalEnvelope():
                for refusal in envelope.payload.tasks:
                    self._claimer.refused(refusal)
            case ControlEnvelope():
                self._follow(envelope.payload.order)
            case _:
                reason = f"type: an agent's control queue takes grant, refusal and control, not {envelope.type}"
                log.warning("control.unexpected", extra={"reason": reason})
                await consumer.dead_letter(delivery, reason)
                return False
        return True

    def _follow(self, order: CancelTask | Renewed | Stored | Heard | Pause | Drain | Resume) -> None:
        match order:
            case CancelTask():
                attempt = self._attempts.find(order.task_id, order.fence)
                if attempt is None:
                    log.info("cancel.not_running", extra={"task_id": order.task_id})
                elif attempt.stop.order(StopReason.CANCELLED, grace=self._kill_grace):
                    log.info("cancel.ordered", extra={"task_id": order.task_id, "trace_id": attempt.grant.trace_id})
            case Renewed():
                self._leases.answered(order)
            case _:
                log.info("order.ignored", extra={"action": order.action})

    def _take_grant(self, grant: GrantedTask, group: asyncio.TaskGroup) -> None:
        if self._claimer.granted(grant) is Reception.LATE:
            # Nobody waits for it; said at once, so that the task need not wait for the end of the lease.
            log.warning("grant.late", extra={"task_id": grant.work.task_id, "trace_id": grant.trace_id})
            group.create_task(self._hand_back(grant), name="hand_back")

    async def _hand_back(self, grant: GrantedTask) -> None:
        envelope = handed_back(self._agent_id, grant, "The agent got the grant too late to run it.")
        try:
            await self._reporter.send(RESULTS, envelope)
        except Exception:  # the lease ends by itself; the agent lives on
            log.exception("grant.not_handed_back", extra={"task_id": grant.work.task_id})
