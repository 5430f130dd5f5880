"""Send a no-op through the real results queue again and again, and start anew when it does not come back.

A process can hold every connection and still hear nothing; only a message that made the whole way proves otherwise.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta

from common.broker import topology
from common.broker.base import Address, Broker, Outgoing
from common.messages import Probe
from common.protocol import ORCHESTRATOR, ProbeEnvelope, encode
from orchestrator.loops.consume import ConsumeQueue
from orchestrator.probes.service import ProbeService

log = logging.getLogger(__name__)

MISSED = 4


class Deaf(Exception):
    """What was sent through the broker does not come back."""


class SendProbe:
    """Sends a probe; when several in a row did not come back, the consumers are opened anew."""

    def __init__(
        self, probes: ProbeService, broker: Broker, *, every: timedelta, consumers: Sequence[ConsumeQueue]
    ) -> None:
        self._probes = probes
        self._broker = broker
        self._deaf_after = every * MISSED
        self._every = every
        self._consumers = consumers
        self._unanswered = 0

    async def run_once(self) -> int:
        silence = await self._probes.silence()
        deaf = silence is not None and silence > self._deaf_after
        self._unanswered = self._unanswered + 1 if deaf or silence is None else 0
        if self._unanswered > MISSED:
            self._unanswered = 0
            log.error("orchestrator.deaf", extra={"silent_for": str(silence)})
            for consumer in self._consumers:
                consumer.reopen()
        if silence is None:
            await self._probes.tidy()
        await self._probes.sent()
        await self._broker.publish(self._message())
        return 0

    async def check(self) -> str:
        """Return how long ago a probe came back; raises `Deaf` when that is too long ago."""
        silence = await self._probes.silence()
        if silence is None:
            raise Deaf("no probe has come back through the results queue yet")
        if silence > self._deaf_after:
            raise Deaf(f"the last probe came back {silence.total_seconds():.1f} s ago")
        return f"a probe came back {silence.total_seconds():.1f} s ago"

    def _message(self) -> Outgoing:
        probe = Probe(orchestrator_id=self._probes.orchestrator_id)
        envelope = ProbeEnvelope(from_agent=ORCHESTRATOR, to_agent=ORCHESTRATOR, payload=probe)
        key = f"{self._probes.orchestrator_id}.{topology.RESULTS.removeprefix('replies.')}"
        return Outgoing(
            Address(topology.REPLIES, key),
            encode(envelope),
            type=envelope.type,
            message_id=envelope.message_id,
            expires_after=self._deaf_after,
        )
