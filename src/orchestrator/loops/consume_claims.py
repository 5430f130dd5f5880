"""Answer agents that ask for tasks."""

from collections.abc import Sequence
from datetime import timedelta

from pydantic import BaseModel

from common.broker import topology
from common.broker.base import Broker
from common.messages import Claim
from orchestrator.leases.service import LeaseService
from orchestrator.loops.tell import tell
from orchestrator.signing.signer import Signer


class ConsumeClaims:
    """Leases tasks and sends the grants. An answer that is lost is asked for again by the agent."""

    queue = topology.CLAIMS
    prefetch = 400
    gather = timedelta(0)
    accepts: tuple[type[BaseModel], ...] = (Claim,)

    def __init__(self, leases: LeaseService, broker: Broker, signer: Signer | None) -> None:
        self._leases = leases
        self._broker = broker
        self._signer = signer

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        answers = await self._leases.claim([payload for payload in payloads if isinstance(payload, Claim)])
        given = [(answer.agent_id, part) for answer in answers for part in (answer.grant, answer.refusal) if part]
        await tell(self._broker, given, signer=self._signer)
