"""Take the results of tasks, and what agents say they cannot do."""

import logging
from collections.abc import Sequence

from pydantic import BaseModel

from common.broker import topology
from common.broker.base import Broker
from common.loop import Wake
from common.messages import ProtocolError, WorkResult
from orchestrator.leases.service import LeaseService
from orchestrator.loops.tell import stored, tell

log = logging.getLogger(__name__)


class ConsumeResults:
    """Stores results; a task that is repeated becomes a new ticket."""

    queue = topology.RESULTS
    accepts: tuple[type[BaseModel], ...] = (WorkResult, ProtocolError)

    def __init__(self, leases: LeaseService, broker: Broker, relay: Wake) -> None:
        self._leases = leases
        self._broker = broker
        self._relay = relay

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        for payload in payloads:
            if isinstance(payload, ProtocolError):
                log.warning(
                    "agent.error",
                    extra={"error_code": payload.error_code, "error": payload.error_message, "task_id": payload.about},
                )
        results = [payload for payload in payloads if isinstance(payload, WorkResult)]
        if results:
            await self._leases.accept(results)
            self._relay.ring()
            await tell(self._broker, stored(results))
