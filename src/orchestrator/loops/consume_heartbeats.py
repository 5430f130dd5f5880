"""Take heartbeats and renewals."""

from collections.abc import Sequence
from uuid import UUID

from pydantic import BaseModel

from common.broker import topology
from common.broker.base import Broker, Outgoing
from common.messages import Control, Renew, Renewed, StatusUpdate
from common.protocol import ORCHESTRATOR, ControlEnvelope, encode
from orchestrator.leases.service import LeaseService
from orchestrator.registry.service import RegistryService


class ConsumeHeartbeats:
    """Notes how agents are, and prolongs their leases. Renewals first: somebody's work depends on the answer."""

    queue = topology.HEARTBEATS
    accepts: tuple[type[BaseModel], ...] = (StatusUpdate, Renew)

    def __init__(self, registry: RegistryService, leases: LeaseService, broker: Broker) -> None:
        self._registry = registry
        self._leases = leases
        self._broker = broker

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        renewals = [payload for payload in payloads if isinstance(payload, Renew)]
        if renewals:
            answers = await self._leases.renew(renewals)
            await self._broker.publish(*(_message(agent_id, renewed) for agent_id, renewed in answers))
        updates = [payload for payload in payloads if isinstance(payload, StatusUpdate)]
        if updates:
            await self._registry.record(updates)


def _message(agent_id: UUID, renewed: Renewed) -> Outgoing:
    envelope = ControlEnvelope(from_agent=ORCHESTRATOR, to_agent=str(agent_id), payload=Control(order=renewed))
    return Outgoing(
        topology.control_address(agent_id), encode(envelope), type=envelope.type, message_id=envelope.message_id
    )
