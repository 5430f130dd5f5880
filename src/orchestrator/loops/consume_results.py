"""Take the results of tasks, and what agents say they cannot do."""

import logging
from collections.abc import Sequence

from pydantic import BaseModel

from common.broker import topology
from common.loop import Wake
from common.messages import ProtocolError, WorkResult
from orchestrator.leases.service import LeaseService

log = logging.getLogger(__name__)


class ConsumeResults:
    """Stores results; a task that is repeated becomes a new ticket."""

    queue = topology.RESULTS
    accepts: tuple[type[BaseModel], ...] = (WorkResult, ProtocolError)

    def __init__(self, leases: LeaseService, relay: Wake) -> None:
        self._leases = leases
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
