"""Take the results of tasks, what agents cannot read, and the probes that prove the way."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from pydantic import BaseModel

from common.broker import topology
from common.broker.base import Broker
from common.messages import Credit, Probe, WorkResult
from common.protocol import WorkResults
from common.unreadable import Unreadable
from orchestrator.dead_letters.service import DeadLetterService
from orchestrator.leases.service import LeaseService
from orchestrator.loops.tell import stored, tell
from orchestrator.probes.service import ProbeService


class ConsumeResults:
    """Stores results, with the credit that came with them; a task that is to be repeated waits again."""

    queue = topology.RESULTS
    prefetch = 400
    gather = timedelta(0)
    accepts: tuple[type[BaseModel], ...] = (WorkResult, WorkResults, Probe, Unreadable)

    def __init__(self, leases: LeaseService, probes: ProbeService, letters: DeadLetterService, broker: Broker) -> None:
        self._leases = leases
        self._probes = probes
        self._letters = letters
        self._broker = broker

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        probes = {payload.orchestrator_id for payload in payloads if isinstance(payload, Probe)}
        if probes:
            await self._probes.returned(sorted(probes))
        unreadable = [payload for payload in payloads if isinstance(payload, Unreadable)]
        if unreadable:
            await self._letters.note_reported(unreadable)
        await accept(payloads, self._leases, self._broker)


async def accept(payloads: Sequence[BaseModel], leases: LeaseService, broker: Broker) -> None:
    """Store the results among payloads, note the credit that came with them, and tell the agents what is stored."""
    results = [payload for payload in payloads if isinstance(payload, WorkResult)]
    credits: dict[UUID, Credit] = {}
    for payload in payloads:
        if isinstance(payload, WorkResults) and payload.credit is not None:
            known = credits.get(payload.agent_id)
            # Of two messages of one session the later one says more; of two sessions the ledger knows which counts.
            if known is None or payload.credit.limit >= known.limit or payload.credit.session != known.session:
                credits[payload.agent_id] = payload.credit
    if results:
        await leases.accept(results, credits)
        await tell(broker, stored(results))
