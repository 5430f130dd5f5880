"""Take heartbeats and renewals."""

from collections.abc import Sequence
from uuid import UUID

from pydantic import BaseModel

from common.broker import topology
from common.broker.base import Broker
from common.messages import Heard, Renew, Renewed, StatusUpdate
from orchestrator.leases.service import LeaseService
from orchestrator.loops.tell import tell
from orchestrator.registry.service import RegistryService


class ConsumeHeartbeats:
    """Notes how agents are, and prolongs their leases. Renewals first: somebody's work depends on the answer."""

    queue = topology.HEARTBEATS
    prefetch = 2000
    accepts: tuple[type[BaseModel], ...] = (StatusUpdate, Renew)

    def __init__(self, registry: RegistryService, leases: LeaseService, broker: Broker) -> None:
        self._registry = registry
        self._leases = leases
        self._broker = broker

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        renewals = [payload for payload in payloads if isinstance(payload, Renew)]
        if renewals:
            await tell(self._broker, await self._leases.renew(renewals))
        updates = [payload for payload in payloads if isinstance(payload, StatusUpdate)]
        if updates:
            await self._registry.record(updates)
            await tell(self._broker, _heard(updates))


def _heard(updates: Sequence[StatusUpdate]) -> list[tuple[UUID, Renewed | Heard]]:
    return [(update.agent_id, Heard(beat_id=update.beat_id)) for update in updates if update.beat_id is not None]
