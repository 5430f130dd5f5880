"""Note agents that have fallen silent, and take back the work that never reached them."""

import asyncio
import logging
from contextlib import suppress
from uuid import UUID

from common.broker import topology
from common.broker.base import Broker, BrokerUnavailable, Consumer, Delivery, Queue
from common.messages import WorkResult
from common.protocol import UnreadableMessage, WorkRequestEnvelope, decode
from orchestrator.leases.grants import not_delivered
from orchestrator.leases.service import LeaseService
from orchestrator.registry.service import RegistryService

log = logging.getLogger(__name__)

# How long what waits in a queue takes to come, in seconds.
PATIENCE = 2.0


class WatchAgents:
    """Marks silent agents as offline; the tasks that still wait in their queues are given to others at once.

    A task that its agent may have got stays leased until its lease ends: it may run.
    """

    def __init__(self, registry: RegistryService, leases: LeaseService, broker: Broker, *, batch: int = 500) -> None:
        self._registry = registry
        self._leases = leases
        self._broker = broker
        self._batch = batch

    async def run_once(self) -> int:
        silent = await self._registry.mark_silent(limit=self._batch)
        for agent_type, agent_id in silent:
            # While the broker is away the leases end by themselves.
            with suppress(BrokerUnavailable):
                await self._take_back(topology.work_queue(agent_type, agent_id), agent_id)
        return len(silent)

    async def _take_back(self, queue: Queue, agent_id: UUID) -> None:
        waiting = await self._broker.depth(queue.name)
        if waiting == 0:
            return
        async with self._broker.consume(queue.name, prefetch=waiting) as consumer:
            deliveries = await _received(consumer, waiting)
            await consumer.cancel()
            if not deliveries:
                return
            # Gone for certain before others get the tasks. After an acknowledgement that is lost the message would
            # come again, and the agent begin what another runs.
            await self._broker.delete(queue.name)
            await self._broker.declare(queue, keep=False)
        undelivered = [result for delivery in deliveries for result in _never_there(delivery, agent_id)]
        log.warning("work.taken_back", extra={"agent_id": agent_id, "tasks": len(undelivered)})
        if undelivered:
            await self._leases.accept(undelivered)


async def _received(consumer: Consumer, waiting: int) -> list[Delivery]:
    """Return what a queue holds, as far as it comes soon: at most `waiting` messages."""
    deliveries: list[Delivery] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while len(deliveries) < waiting:
                deliveries += await consumer.receive(waiting)
    return deliveries


def _never_there(delivery: Delivery, agent_id: UUID) -> list[WorkResult]:
    """Return the results that say of the tasks of a message that no agent ever got them; none when one may have."""
    try:
        envelope = decode(delivery.body)
    except UnreadableMessage:
        return []
    if delivery.redelivered or not isinstance(envelope, WorkRequestEnvelope) or envelope.payload.again:
        return []
    return [
        not_delivered(agent_id, grant.work.task_id, attempt=grant.attempt, fence=grant.fence)
        for grant in envelope.payload.tasks
    ]
