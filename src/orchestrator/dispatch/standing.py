"""Claims that agents have made in advance: they are idle, and would take whatever comes next.

A memory of this process, not of the ledger: what is forgotten here costs its agent a question. A standing claim counts
for a moment only. An agent that says nothing more may have died, and a task that is leased to a dead agent waits for
the end of the lease; one that is not idempotent has then had its only start.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from common.messages import STANDING_SECONDS


@dataclass(frozen=True, slots=True)
class StandingClaim:
    """The claim of one agent of a type, for one task. `until`: it counts no longer; on the monotonic clock."""

    agent_id: UUID
    agent_type: str
    claim_id: UUID
    until: float


class StandingClaims:
    """Gives them out in the order in which they came. `most` is how many one agent may have; 0: none is taken."""

    def __init__(self, *, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._now = now
        self._queues: dict[str, deque[StandingClaim]] = {}
        # The agent of each claim that stands.
        self._standing: dict[UUID, UUID] = {}
        self._of_agent: Counter[UUID] = Counter()
        self._under_way: set[UUID] = set()

    def add(self, agent_id: UUID, agent_type: str, claim_ids: Iterable[UUID]) -> None:
        """Take claims in; those beyond what an agent may have are not taken, and one counts once."""
        until = self._now() + STANDING_SECONDS
        queue = self._queues.setdefault(agent_type, deque())
        self._drop_old(queue)
        for claim_id in claim_ids:
            if claim_id not in self._standing and self._of_agent[agent_id] < self.most:
                self._stand(claim_id, agent_id)
                queue.append(StandingClaim(agent_id, agent_type, claim_id, until))

    def take(self, agent_type: str) -> StandingClaim | None:
        """Return the claim that has stood for the longest of those that count, or None; it is under way until `settle`.

        It is used up.
        """
        queue = self._queues.get(agent_type)
        while queue:
            claim = queue.popleft()
            if self._fall(claim.claim_id) and claim.until > self._now():
                self._under_way.add(claim.claim_id)
                return claim
        return None

    def agents(self, agent_type: str) -> set[UUID]:
        """Return the agents of a type that have claims."""
        return {claim.agent_id for claim in self._queues.get(agent_type, ())}

    @property
    def agent_types(self) -> list[str]:
        """The types of agents that have claims which count."""
        for queue in self._queues.values():
            self._drop_old(queue)
        return [agent_type for agent_type, queue in self._queues.items() if queue]

    def take_all(self, agent_type: str) -> list[StandingClaim]:
        """Take all claims of a type, as `take` does each."""
        taken: list[StandingClaim] = []
        while (claim := self.take(agent_type)) is not None:
            taken.append(claim)
        return taken

    def give_back(self, claims: Sequence[StandingClaim]) -> None:
        """Let claims that were taken stand again, before all others: nothing was tried with them."""
        self.settle(claims)
        for claim in reversed(claims):
            self._stand(claim.claim_id, claim.agent_id)
            self._queues[claim.agent_type].appendleft(claim)

    def settle(self, claims: Iterable[StandingClaim]) -> None:
        """The ledger says what became of claims that were taken."""
        self._under_way.difference_update(claim.claim_id for claim in claims)

    def withdraw(self, agent_id: UUID, claim_ids: Iterable[UUID]) -> list[UUID]:
        """These of an agent stand no more; return those of which the ledger says what became of them.

        None of those is under way.
        """
        ids = list(claim_ids)
        for claim_id in ids:
            if self._standing.get(claim_id) == agent_id:
                self._fall(claim_id)
        return [claim_id for claim_id in ids if claim_id not in self._under_way]

    def _drop_old(self, queue: deque[StandingClaim]) -> None:
        while queue and queue[0].until <= self._now():
            self._fall(queue.popleft().claim_id)

    def _stand(self, claim_id: UUID, agent_id: UUID) -> None:
        self._standing[claim_id] = agent_id
        self._of_agent[agent_id] += 1

    def _fall(self, claim_id: UUID) -> bool:
        """Let a claim stand no more; return whether it did."""
        agent_id = self._standing.pop(claim_id, None)
        if agent_id is None:
            return False
        self._of_agent[agent_id] -= 1
        if not self._of_agent[agent_id]:
            del self._of_agent[agent_id]
        return True
