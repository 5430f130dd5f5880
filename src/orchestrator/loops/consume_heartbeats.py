"""Take heartbeats and renewals."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from pydantic import BaseModel

from common.broker import topology
from common.broker.base import Broker
from common.messages import AgentStatus, Renew, StatusUpdate
from common.orders import Heard, TrustKeys
from orchestrator.leases.service import LeaseService
from orchestrator.loops.agent_queues import give_queues
from orchestrator.loops.tell import tell
from orchestrator.registry.service import RegistryService
from orchestrator.signing.signer import Signer


class ConsumeHeartbeats:
    """Notes how agents are, and prolongs their leases. Renewals first: somebody's work depends on the answer."""

    queue = topology.HEARTBEATS
    prefetch = 2000
    gather = timedelta(milliseconds=50)
    accepts: tuple[type[BaseModel], ...] = (StatusUpdate, Renew)

    def __init__(self, registry: RegistryService, leases: LeaseService, broker: Broker, signer: Signer | None) -> None:
        self._registry = registry
        self._leases = leases
        self._broker = broker
        self._signer = signer

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        renewals = [payload for payload in payloads if isinstance(payload, Renew)]
        if renewals:
            await tell(self._broker, await self._leases.renew(renewals))
        updates = [payload for payload in payloads if isinstance(payload, StatusUpdate)]
        if updates:
            await self._registry.record(updates)
            await self._hear(updates)

    async def _hear(self, updates: Sequence[StatusUpdate]) -> None:
        """Say that they were heard; an agent that has no queues gets them, for it may not be able to make its own."""
        answers: list[tuple[UUID, Heard | TrustKeys]] = [*_heard(updates), *self._news_of_keys(updates)]
        working = {update.agent_id for update in updates if update.status is not AgentStatus.OFFLINE}
        without = working & await tell(self._broker, answers)
        if without and await give_queues(self._broker, without):
            await tell(self._broker, [(agent_id, answer) for agent_id, answer in answers if agent_id in without])

    def _news_of_keys(self, updates: Sequence[StatusUpdate]) -> list[tuple[UUID, TrustKeys]]:
        if self._signer is None:
            return []
        news = [(update.agent_id, self._signer.news_for(update.trusted_keys)) for update in updates]
        return [(agent_id, TrustKeys(signatures=list(signatures))) for agent_id, signatures in news if signatures]


def _heard(updates: Sequence[StatusUpdate]) -> list[tuple[UUID, Heard]]:
    return [(update.agent_id, Heard(beat_id=update.beat_id)) for update in updates if update.beat_id is not None]
