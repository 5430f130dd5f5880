"""Say that the agent is there, how it is and what it does. The first heartbeat is also the registration."""

import asyncio
import logging
from datetime import timedelta
from uuid import UUID, uuid4

from agents.attempts.owned import Attempts
from agents.contact.clock_watch import ClockWatch
from agents.contact.hearing import Hearing
from agents.contact.resources import ResourceMonitor
from agents.gate.trust import Trust
from agents.identity.registration import Identity
from agents.link.replies import reply
from agents.tasks.availability import Availability
from agents.tasks.slots import Slots
from common.broker.base import Broker, BrokerUnavailable
from common.broker.topology import HEARTBEATS
from common.clock import Clock
from common.loop import Health, Wake, keep_running
from common.messages import AgentStatus, StatusUpdate
from common.protocol import ORCHESTRATOR, StatusUpdateEnvelope

log = logging.getLogger(__name__)


class Heartbeat:
    """Beats until cancelled. A beat that fails is not repeated: the next one says more."""

    def __init__(
        self,
        broker: Broker,
        identity: Identity,
        attempts: Attempts,
        resources: ResourceMonitor,
        availability: Availability,
        hearing: Hearing,
        clock: Clock,
        trust: Trust | None,
        clocks: ClockWatch,
        slots: Slots,
        *,
        every: timedelta,
        health: Health,
    ) -> None:
        self._broker = broker
        self._identity = identity
        self._attempts = attempts
        self._resources = resources
        self._availability = availability
        self._hearing = hearing
        self._clock = clock
        self._trust = trust
        self._clocks = clocks
        self._slots = slots
        self._every = every
        self._health = health
        self._soon = Wake()

    async def run(self) -> None:
        async def beat() -> None:
            await self.beat(self.status())
            await self._soon.wait(self._every)

        await keep_running("heartbeat", beat, health=self._health)

    def beat_soon(self) -> None:
        """Something changed that should not wait for the next beat."""
        self._soon.ring()

    def status(self) -> AgentStatus:
        if self._availability.is_leaving:
            return AgentStatus.DRAINING
        return AgentStatus.BUSY if len(self._attempts) else AgentStatus.ONLINE

    async def beat(self, status: AgentStatus) -> UUID | None:
        """Send one heartbeat; it expires, because an old one says nothing. Return its id; None when it was not sent."""
        identity, beat_id = self._identity, uuid4()
        envelope = StatusUpdateEnvelope(
            from_agent=str(identity.agent_id),
            to_agent=ORCHESTRATOR,
            payload=StatusUpdate(
                agent_id=identity.agent_id,
                agent_type=identity.agent_type,
                status=status,
                hostname=identity.hostname,
                version=identity.version,
                work_types=list(identity.work_types),
                slots=identity.slots,
                current_tasks=[attempt.task_id for attempt in self._attempts],
                resources=self._resources.current(),
                started_at=identity.started_at,
                labels=dict(identity.labels),
                beat_id=beat_id,
                sent_at=self._clock.now(),
                boot_id=identity.boot_id,
                credit=self._slots.credit(),
                schemas={} if self._hearing.has_heard else dict(identity.schemas),
                trusted_keys=None if self._trust is None else self._trust.key_ids,
            ),
        )
        message = reply(identity.agent_id, HEARTBEATS, envelope, is_repeated=True, expires_after=self._every * 3)
        self._clocks.sent(beat_id)
        try:
            async with asyncio.timeout(max(self._every.total_seconds(), 1.0)):
                await self._broker.publish(message)
        except (BrokerUnavailable, TimeoutError) as failure:
            log.warning("heartbeat.failed", extra={"reason": str(failure)})
            return None
        self._hearing.sent(at=self._clock.monotonic())
        return beat_id
