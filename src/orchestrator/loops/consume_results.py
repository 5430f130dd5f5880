"""Take the results of tasks, what agents cannot do or read, and the probes that prove the way."""

import logging
from collections.abc import Sequence
from datetime import timedelta

from pydantic import BaseModel

from common.broker import topology
from common.broker.base import Broker
from common.errors import ErrorCode
from common.messages import Probe, ProtocolError, WorkResult
from common.unreadable import Unreadable
from orchestrator.dead_letters.service import DeadLetterService
from orchestrator.leases.service import LeaseService
from orchestrator.loops.tell import stored, tell
from orchestrator.probes.service import ProbeService

log = logging.getLogger(__name__)


class ConsumeResults:
    """Stores results; a task that is repeated becomes a new ticket."""

    queue = topology.RESULTS
    prefetch = 400
    gather = timedelta(0)
    accepts: tuple[type[BaseModel], ...] = (WorkResult, ProtocolError, Probe, Unreadable)

    def __init__(self, leases: LeaseService, probes: ProbeService, letters: DeadLetterService, broker: Broker) -> None:
        self._leases = leases
        self._probes = probes
        self._letters = letters
        self._broker = broker

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        await self._note_errors([payload for payload in payloads if isinstance(payload, ProtocolError)])
        probes = {payload.orchestrator_id for payload in payloads if isinstance(payload, Probe)}
        if probes:
            await self._probes.returned(sorted(probes))
        unreadable = [payload for payload in payloads if isinstance(payload, Unreadable)]
        if unreadable:
            await self._letters.note_reported(unreadable)
        results = [payload for payload in payloads if isinstance(payload, WorkResult)]
        if results:
            await self._leases.accept(results)
            await tell(self._broker, stored(results))

    async def _note_errors(self, errors: Sequence[ProtocolError]) -> None:
        """Give back the tickets that an agent could not use; the relay looks anew at what its agents offer."""
        for error in errors:
            log.info(
                "agent.error",
                extra={"error_code": error.error_code, "error": error.error_message, "task_id": error.about},
            )
        await self._leases.return_tickets(
            [
                (error.about, error.agent_id)
                for error in errors
                if error.about and error.error_code == ErrorCode.UNSUPPORTED_WORK_TYPE
            ]
        )
