"""Take heartbeats and renewals."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from pydantic import BaseModel

from common.broker import topology
from common.broker.base import Broker
from common.messages import AgentStatus, Credit, Renew, StatusUpdate
from common.orders import Heard, Leave, TrustKeys
from orchestrator.leases.credits import Credits
from orchestrator.leases.service import LeaseService
from orchestrator.loops.agent_queues import give_queues
from orchestrator.loops.send_work import SendWork
from orchestrator.loops.tell import tell
from orchestrator.registry.service import RegistryService
from orchestrator.signing.signer import Signer

# Said to an agent of an earlier version, which takes tickets and would wait for ever.
UPGRADE = "its version {} is too old for this orchestrator: upgrade the agent"


class ConsumeHeartbeats:
    """Notes how agents are and for how much work they ask, and prolongs their leases. Renewals go first: work that runs
    depends on the answer.
    """

    queue = topology.HEARTBEATS
    prefetch = 2000
    gather = timedelta(milliseconds=50)
    accepts: tuple[type[BaseModel], ...] = (StatusUpdate, Renew)

    def __init__(
        self,
        registry: RegistryService,
        leases: LeaseService,
        broker: Broker,
        signer: Signer | None,
        *,
        send: SendWork,
        credits: Credits,
    ) -> None:
        self._registry = registry
        self._leases = leases
        self._broker = broker
        self._signer = signer
        self._send = send
        self._credits = credits

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        renewals = [payload for payload in payloads if isinstance(payload, Renew)]
        if renewals:
            await tell(self._broker, await self._leases.renew(renewals))
        updates = [payload for payload in payloads if isinstance(payload, StatusUpdate)]
        if updates:
            for update in updates:
                self._credits.offers(update.agent_id, update.agent_type, update.work_types)
            recorded = await self._registry.record(updates)
            self._leases.learn(recorded.rooms)
            await self._hear(updates, {room.agent_id: room.granted for room in recorded.rooms})
            # Only now: an agent that had no queue has one.
            self._send(await self._leases.settle(_credits(updates)))

    async def _hear(self, updates: Sequence[StatusUpdate], granted: Mapping[UUID, int]) -> None:
        """Say that they were heard; an agent that has no queues gets them: it may not be able to make its own."""
        answers: list[tuple[UUID, Heard | Leave | TrustKeys]] = [
            *_heard(updates, granted),
            *_too_old(updates),
            *self._news_of_keys(updates),
        ]
        pools = {update.agent_id: update.agent_type for update in updates if update.status is not AgentStatus.OFFLINE}
        without = {agent_id: pools[agent_id] for agent_id in await tell(self._broker, answers) if agent_id in pools}
        if without and await give_queues(self._broker, without):
            await tell(self._broker, [(agent_id, answer) for agent_id, answer in answers if agent_id in without])

    def _news_of_keys(self, updates: Sequence[StatusUpdate]) -> list[tuple[UUID, TrustKeys]]:
        if self._signer is None:
            return []
        news = [(update.agent_id, self._signer.news_for(update.trusted_keys)) for update in updates]
        return [(agent_id, TrustKeys(signatures=list(signatures))) for agent_id, signatures in news if signatures]


def _credits(updates: Sequence[StatusUpdate]) -> dict[UUID, Credit]:
    return {update.agent_id: update.credit for update in updates if update.credit is not None}


def _heard(updates: Sequence[StatusUpdate], granted: Mapping[UUID, int]) -> list[tuple[UUID, Heard]]:
    # What the ledger says of an agent is about the process of its newest heartbeat.
    newest = {update.agent_id: update.boot_id for update in updates}

    def granted_to(update: StatusUpdate) -> int | None:
        return granted.get(update.agent_id) if update.boot_id == newest[update.agent_id] else None

    return [
        (update.agent_id, Heard(beat_id=update.beat_id, granted=granted_to(update)))
        for update in updates
        if update.beat_id is not None
    ]


def _too_old(updates: Sequence[StatusUpdate]) -> list[tuple[UUID, Leave]]:
    """Tell agents that do not ask for work by credit to leave: their version is older than this orchestrator's."""
    return [
        (update.agent_id, Leave(boot_id=update.boot_id, reason=UPGRADE.format(update.version)))
        for update in updates
        if update.credit is None and update.boot_id is not None and update.status is not AgentStatus.OFFLINE
    ]
