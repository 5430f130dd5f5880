"""Note agents that have fallen silent, and take back the work that never reached them."""

import asyncio
import logging
from contextlib import suppress
from uuid import UUID

from common.broker import topology
from common.broker.base import Broker, BrokerUnavailable, Consumer, Delivery, NotPermitted
from common.messages import WorkResult
from common.protocol import UnreadableMessage, WorkRequestEnvelope, decode
from orchestrator.leases.grants import not_delivered
from orchestrator.leases.service import LeaseService
from orchestrator.loops.agent_queues import give_queues
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
        # (agent_type, agent_id) of those whose queues were not looked at yet.
        self._silent: list[tuple[str, UUID]] = []

    async def run_once(self) -> int:
        silent = await self._registry.mark_silent(limit=self._batch)
        self._silent += silent
        while self._silent:
            agent_type, agent_id = self._silent[-1]
            try:
                await self._take_back(agent_type, agent_id)
            except NotPermitted as error:
                log.warning("work.not_taken_back", extra={"agent_id": agent_id, "reason": str(error)})
            except BrokerUnavailable:
                break
            self._silent.pop()
        return len(silent)

    async def _take_back(self, agent_type: str, agent_id: UUID) -> None:
        queue = topology.work_queue(agent_type, agent_id)
        waiting = await self._broker.depth(queue.name)
        if waiting == 0 or await self._registry.is_online(agent_id):
            return
        async with self._broker.consume(queue.name, prefetch=waiting) as consumer:
            deliveries = await _received(consumer, waiting)
            await consumer.cancel()
            if not deliveries:
                return
            undelivered: list[WorkResult] = []
            for delivery in deliveries:
                try:
                    undelivered += _never_there(delivery, agent_id)
                except UnreadableMessage as error:
                    log.warning("message.dead_lettered", extra={"queue": queue.name, "reason": str(error)})
                    await consumer.dead_letter(delivery, str(error))
            # Gone for certain before others get the tasks. After an acknowledgement that is lost the message would
            # come again, and the agent begin what another runs.
            await self._broker.delete(queue.name)
        log.warning("work.taken_back", extra={"agent_id": agent_id, "tasks": len(undelivered)})
        if undelivered:
            await self._leases.accept(undelivered)
        await give_queues(self._broker, {agent_id: agent_type})


async def _received(consumer: Consumer, waiting: int) -> list[Delivery]:
    """Return what a queue holds, as far as it comes soon: at most `waiting` messages."""
    deliveries: list[Delivery] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while len(deliveries) < waiting:
                deliveries += await consumer.receive(waiting)
    return deliveries


def _never_there(delivery: Delivery, agent_id: UUID) -> list[WorkResult]:
    """Return the results that say of the tasks of a message that no agent ever got them; none when one may have.

    Raises UnreadableMessage for what is no grant of work.
    """
    envelope = decode(delivery.body)
    if not isinstance(envelope, WorkRequestEnvelope):
        raise UnreadableMessage(f"type: an agent's work queue takes work_request, not {envelope.type}")
    if delivery.redelivered or envelope.payload.again:
        return []
    return [not_delivered(agent_id, grant.work.task_id, attempt=grant.attempt) for grant in envelope.payload.tasks]
