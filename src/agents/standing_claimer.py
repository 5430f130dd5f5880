"""Make standing claims: an agent with idle slots tells the orchestrator that it would take whatever comes next.

A task that is dispatched then goes to it at once, leased and signed, without a ticket and a claim in between. Such a
claim counts for half a second only; an agent that is not needed falls silent, and says no more of what it has free. Of
each claim that was not answered it asks what became of it, for the grant may be lost: a grant that was given is sent
once more, and when the answer is that nothing was leased to it the claim is forgotten.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from agents.availability import Availability
from agents.capacity import Capacity
from agents.open_standing_claims import ASKED_AGAIN_AFTER, Answered, OpenStandingClaims
from agents.replies import reply
from common.broker.base import Broker, BrokerUnavailable
from common.broker.topology import CLAIMS
from common.clock import Clock
from common.loop import Health, Wake, keep_running
from common.messages import STANDING_SECONDS, Claim
from common.protocol import ORCHESTRATOR, ClaimEnvelope

log = logging.getLogger(__name__)

LONGEST_SLEEP = 60.0


class StandingClaimer:
    """Makes claims while the agent takes work and has idle slots, until cancelled."""

    def __init__(
        self,
        broker: Broker,
        agent_id: UUID,
        agent_type: str,
        capacity: Capacity,
        availability: Availability,
        clock: Clock,
        *,
        health: Health,
    ) -> None:
        self._broker = broker
        self._agent_id = agent_id
        self._agent_type = agent_type
        self._capacity = capacity
        self._availability = availability
        self._clock = clock
        self._health = health
        self._open = OpenStandingClaims()
        self._most = 0
        self._is_needed = False
        self._news = Wake()
        self._answered = Wake()
        capacity.freed = self._more_may_come

    def allow(self, most: int) -> None:
        """So many the orchestrator takes; 0: it does not know of such claims."""
        self._most = most

    def granted(self, claim_id: UUID) -> Answered | None:
        """Return the claim that is answered with a task; None when it is none of these. Its slot is the caller's."""
        answered = self._open.answered(claim_id)
        if answered is not None:
            self._answered.ring()
            self._more_may_come()
        return answered

    def refused(self, claim_id: UUID) -> None:
        """Nothing was leased to a claim, and nothing will be."""
        answered = self._open.answered(claim_id)
        if answered is not None:
            self._answered.ring()
            self._capacity.let_go(int(answered.has_slot))

    async def run(self) -> None:
        """Claim, and ask what became of claims, until cancelled."""
        await keep_running("standing_claims", self._step, health=self._health)

    async def withdraw(self, *, within: float) -> bool:
        """Ask about all claims and wait for the answers; False when they take too long."""
        self._open.ask_all()
        self._news.ring()
        try:
            async with asyncio.timeout(within):
                while self._open.is_asking:
                    await self._answered.rung()
        except TimeoutError:
            return False
        return True

    def _more_may_come(self) -> None:
        if self._most and not self._is_needed:
            self._is_needed = True
            self._news.ring()

    async def _step(self) -> None:
        now = self._clock.monotonic()
        self._capacity.let_go(self._open.lapse(now))
        withdrawn, made = self._open.ask(now), self._make(now)
        if made or withdrawn:
            await self._send(made, withdrawn)
        pause = min(LONGEST_SLEEP, max(0.0, self._open.next_change() - self._clock.monotonic()))
        await self._news.wait(timedelta(seconds=pause))

    def _make(self, now: float) -> Sequence[UUID]:
        self._is_needed, is_needed = False, self._is_needed
        if not is_needed or not self._availability.is_open:
            return ()
        capacity = self._capacity
        made = self._open.make(now, most=self._most, slots=capacity.slots, free=capacity.free, begun=capacity.taken)
        capacity.keep(len(made))
        return made

    async def _send(self, made: Sequence[UUID], withdrawn: Sequence[UUID]) -> None:
        envelope = ClaimEnvelope(
            from_agent=str(self._agent_id),
            to_agent=ORCHESTRATOR,
            payload=Claim(
                agent_id=self._agent_id, agent_type=self._agent_type, standing=list(made), withdrawn=list(withdrawn)
            ),
        )
        # A question waits until it is asked again; what is claimed counts for a moment.
        expires_after = timedelta(seconds=ASKED_AGAIN_AFTER if withdrawn else STANDING_SECONDS)
        try:
            await self._broker.publish(
                reply(self._agent_id, CLAIMS, envelope, is_repeated=True, expires_after=expires_after)
            )
        except BrokerUnavailable as failure:  # asked about later
            log.debug("standing_claims.not_sent", extra={"claims": len(made), "reason": str(failure)})
