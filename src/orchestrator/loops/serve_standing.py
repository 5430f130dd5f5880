"""Give what waits to agents that have claimed in advance, before it is published."""

from collections.abc import Sequence
from uuid import UUID

from common.broker.base import Broker
from common.messages import Claim, ClaimedTask
from orchestrator.database.pool import Pool
from orchestrator.dispatch import queries
from orchestrator.dispatch.pairing import pair
from orchestrator.dispatch.standing import StandingClaim, StandingClaims
from orchestrator.leases.service import LeaseService
from orchestrator.loops.tell import tell
from orchestrator.outbox import queries as outbox
from orchestrator.outbox.model import DueTask
from orchestrator.signing.signer import Signer

# Maximum number of tasks of one work type that are looked at for the claims of one pool.
MOST_AT_ONCE = 200


class ServeStanding:
    """Claims the best tasks of a pool for its agents, as they would with the tickets: many in one transaction."""

    def __init__(
        self, pool: Pool, leases: LeaseService, standing: StandingClaims, broker: Broker, signer: Signer | None
    ) -> None:
        self._pool = pool
        self._leases = leases
        self._standing = standing
        self._broker = broker
        self._signer = signer

    async def run_once(self) -> int:
        return sum([await self._serve(agent_type) for agent_type in self._standing.agent_types])

    async def _serve(self, agent_type: str) -> int:
        async with self._pool.acquire() as db:
            offered = await queries.offered(db, self._standing.agents(agent_type), agent_type)
            work_types = frozenset().union(*offered.values())
            waiting = await outbox.best_due(db, agent_type, limit=MOST_AT_ONCE, work_types=work_types)
        if not waiting:
            return 0
        pairs, left = pair(waiting, self._standing.take_all(agent_type), offered)
        self._standing.give_back(left)
        if not pairs:
            return 0
        try:
            answers = await self._leases.claim(_claims(pairs))
        finally:
            self._standing.settle(claim for claim, _ in pairs)
        parts = [(answer.agent_id, part) for answer in answers for part in (answer.grant, answer.refusal) if part]
        await tell(self._broker, parts, signer=self._signer, most_standing=self._standing.most)
        return len(pairs)


def _claims(given: Sequence[tuple[StandingClaim, DueTask]]) -> list[Claim]:
    """Return the claims that the agents would make if they had the tickets."""
    by_agent: dict[UUID, list[ClaimedTask]] = {}
    for claim, due in given:
        by_agent.setdefault(claim.agent_id, []).append(
            ClaimedTask(task_id=due.task_id, fence=due.fence, claim_id=claim.claim_id)
        )
    return [Claim(agent_id=agent_id, tasks=tasks) for agent_id, tasks in by_agent.items()]
