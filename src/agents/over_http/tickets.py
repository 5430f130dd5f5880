"""The work queue of an agent over HTTP: each delivery is the ticket of a job that was claimed for this slot."""

import asyncio
from collections.abc import Sequence
from typing import cast

from agents.over_http.handing_back import HandingBack
from agents.over_http.held import HeldJob
from agents.over_http.job_claimer import JobClaimer
from common.broker.base import ConsumerCancelled, Delivery
from common.loop import Wake
from common.messages import Ticket
from common.protocol import NORMAL_PRIORITY, ORCHESTRATOR, TicketEnvelope, encode


class TicketConsumer:
    """See `common.broker.base.Consumer`. A job is claimed for a slot, so the next when the one before is settled."""

    def __init__(self, claimer: JobClaimer, handing_back: HandingBack, *, agent_type: str) -> None:
        self._claimer = claimer
        self._handing_back = handing_back
        self._agent_type = agent_type
        self._held: list[Delivery] = []
        self._claiming: asyncio.Task[HeldJob] | None = None
        self._is_cancelled = False
        self._settled = Wake()

    async def receive(self, limit: int = 1) -> Sequence[Delivery]:
        while self._held and not self._is_cancelled:
            await self._settled.rung()
        if not self._is_cancelled:
            claiming = self._claiming = asyncio.create_task(self._claimer.next_job(), name="ticket")
            try:
                await asyncio.wait({claiming})
            except asyncio.CancelledError:
                if not claiming.cancel():  # it had just got one
                    self._claimer.hand_out(claiming.result())
                raise
            if not claiming.cancelled():
                delivery = self._delivery(claiming.result())
                self._held.append(delivery)
                return [delivery]
        raise ConsumerCancelled("The slot takes no more work.")

    async def ack(self, *deliveries: Delivery) -> None:
        """Forget the tickets: the lease says whose the job is."""
        self._held = [held for held in self._held if held not in deliveries]
        self._settled.ring()

    async def requeue(self, *deliveries: Delivery) -> None:
        """Hand back what was not started; a job that was granted is reported on by its slot."""
        for delivery in deliveries:
            job = cast("HeldJob", delivery.tag)
            if delivery in self._held and not job.is_granted:
                self._handing_back.give(job)
        await self.ack(*deliveries)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Hand the job back: a ticket is made here, so it is never unreadable."""
        await self.requeue(delivery)

    async def cancel(self) -> None:
        self._is_cancelled = True
        self._settled.ring()
        if self._claiming is not None:
            self._claiming.cancel()

    async def close(self) -> None:
        """Give back whatever is not settled."""
        await self.cancel()
        await self.requeue(*self._held)

    def _delivery(self, held: HeldJob) -> Delivery:
        job = held.job
        envelope = TicketEnvelope(
            from_agent=ORCHESTRATOR,
            to_agent=self._agent_type,
            trace_id=job.trace_id,
            request_id=job.request_id,
            payload=Ticket(task_id=job.id, work_type=job.type, fence=job.attempt),
        )
        return Delivery(
            body=encode(envelope),
            message_id=str(envelope.message_id),
            priority=NORMAL_PRIORITY,
            redelivered=False,
            headers={},
            tag=held,
        )
