"""Answer agents that ask for tasks."""

from collections.abc import Sequence
from datetime import timedelta

from pydantic import BaseModel

from common.broker import topology
from common.broker.base import Broker
from common.loop import Wake
from common.messages import Claim
from orchestrator.dispatch.standing import StandingClaims
from orchestrator.dispatch.withdrawals import Withdrawals
from orchestrator.leases.answers import Answer
from orchestrator.leases.service import LeaseService
from orchestrator.loops.tell import tell
from orchestrator.outbox.room import Room
from orchestrator.signing.signer import Signer


class ConsumeClaims:
    """Leases tasks, sends the grants, and remembers who claims in advance.

    An answer that is lost is asked for again by the agent.
    """

    queue = topology.CLAIMS
    prefetch = 400
    gather = timedelta(0)
    accepts: tuple[type[BaseModel], ...] = (Claim,)

    def __init__(
        self,
        leases: LeaseService,
        standing: StandingClaims,
        withdrawals: Withdrawals,
        broker: Broker,
        signer: Signer | None,
        *,
        room: Room,
        relay: Wake,
    ) -> None:
        self._leases = leases
        self._standing = standing
        self._withdrawals = withdrawals
        self._broker = broker
        self._signer = signer
        self._room = room
        self._relay = relay

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        claims = [payload for payload in payloads if isinstance(payload, Claim)]
        for claim in claims:
            if claim.standing and claim.agent_type is not None:
                self._standing.add(claim.agent_id, claim.agent_type, claim.standing)
                if not self._room.is_open(claim.agent_type):
                    # Something may wait that is for them.
                    self._relay.ring()
        answers: list[Answer] = []
        if with_tickets := [claim for claim in claims if claim.tasks]:
            answers += await self._leases.claim(with_tickets)
        withdrawn = [
            (claim.agent_id, claim_id)
            for claim in claims
            for claim_id in self._standing.withdraw(claim.agent_id, claim.withdrawn)
        ]
        if withdrawn:
            answers += await self._withdrawals.settle(withdrawn)
        given = [(answer.agent_id, part) for answer in answers for part in (answer.grant, answer.refusal) if part]
        await tell(self._broker, given, signer=self._signer, most_standing=self._standing.most)
