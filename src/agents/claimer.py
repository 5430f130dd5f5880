"""Ask for the tasks whose tickets this agent holds, and match the answers."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from enum import Enum, auto
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from agents.attempts import Attempt, Attempts
from agents.availability import Availability
from agents.given import GivenWork
from agents.replies import reply
from agents.signature_check import SignatureCheck
from agents.standing_claimer import StandingClaimer
from common.batching import Batcher
from common.broker.base import Broker, BrokerUnavailable
from common.broker.topology import CLAIMS
from common.clock import Clock
from common.messages import Claim, ClaimedTask, GrantedTask, RefusedTask, Ticket
from common.protocol import ORCHESTRATOR, ClaimEnvelope
from common.safeguards import Safeguard, is_on

log = logging.getLogger(__name__)

MAX_BATCH = 100
TRIES = 3
REMEMBERED_GRANTS = 10_000


class ClaimUnanswered(Exception):
    """The claim got no answer, also not when it was repeated."""


class Reception(Enum):
    """What a grant was to this agent."""

    AWAITED = auto()
    DUPLICATE = auto()
    LATE = auto()
    FORGED = auto()


class _Asked:
    """A task that was asked for: whether there is an answer, and who waits for it."""

    __slots__ = ("attempt", "claimed_at", "is_answered", "task_id", "waiting")

    def __init__(self, task_id: UUID, claimed_at: float) -> None:
        self.task_id = task_id
        self.claimed_at = claimed_at
        self.is_answered = False
        self.attempt: Attempt | None = None
        self.waiting: asyncio.Future[None] | None = None

    def answer(self, attempt: Attempt | None) -> None:
        self.is_answered = True
        self.attempt = attempt
        self.wake()

    def wake(self) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)


class Claimer:
    """Claims that are made together travel together. Use it as a context manager."""

    def __init__(
        self,
        broker: Broker,
        agent_id: UUID,
        attempts: Attempts,
        clock: Clock,
        availability: Availability,
        signatures: SignatureCheck,
        standing: StandingClaimer,
        given: GivenWork,
        *,
        timeout: timedelta,
    ) -> None:
        self._broker = broker
        self._agent_id = agent_id
        self._attempts = attempts
        self._clock = clock
        self._availability = availability
        self._signatures = signatures
        self._standing = standing
        self._given = given
        self._timeout = timeout.total_seconds()
        self._batcher: Batcher[ClaimedTask, None] = Batcher(self._publish, limit=MAX_BATCH)
        self._asked: dict[UUID, _Asked] = {}
        # The task and fence of each claim that was answered with one.
        self._granted: OrderedDict[UUID, tuple[UUID, int]] = OrderedDict()

    async def __aenter__(self) -> Self:
        await self._batcher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._batcher.__aexit__(kind, error, trace)

    async def claim(self, ticket: Ticket) -> Attempt | None:
        """Return the attempt that was granted, or None when it was refused; raises `ClaimUnanswered`."""
        claimed = ClaimedTask(task_id=ticket.task_id, fence=ticket.fence, claim_id=uuid4())
        # The lease counts from the first asking: which of several was the one that was granted cannot be known.
        asked = self._asked[claimed.claim_id] = _Asked(ticket.task_id, self._clock.monotonic())
        try:
            for _ in range(TRIES):
                await self._ask(claimed, asked)
                if asked.is_answered:
                    return asked.attempt
                log.warning("claim.unanswered", extra={"task_id": ticket.task_id, "claim_id": claimed.claim_id})
                if not self._availability.is_open:
                    break
            raise ClaimUnanswered
        finally:
            del self._asked[claimed.claim_id]

    def granted(self, grant: GrantedTask, signature: str | None = None) -> Reception:
        """Take in a grant. A late one must be handed back, because no slot will run it; a forged one is nothing at all.

        One that was claimed in advance begins. The write gate checks the signature of one that is awaited, and can tell
        the caller what is wrong with it.
        """
        asked = self._waiting_for(grant)
        if self._granted.get(grant.claim_id) == (grant.work.task_id, grant.fence):
            return Reception.DUPLICATE
        ahead = self._standing.granted(grant.claim_id) if asked is None else None
        if ahead is not None:
            attempt = Attempt.granted(grant, claimed_at=ahead.made_at, signature=signature)
            if self._given.begin(attempt, has_slot=ahead.has_slot):
                self._remember(grant)
                return Reception.AWAITED
        if asked is None or asked.is_answered:
            if not self._signatures.is_genuine(grant, signature):
                return Reception.FORGED
            self._remember(grant)
            is_running = self._attempts.find(grant.work.task_id, grant.fence) is not None
            return Reception.DUPLICATE if is_running else Reception.LATE
        self._remember(grant)
        attempt = Attempt.granted(grant, claimed_at=asked.claimed_at, signature=signature)
        # Known from here on, so that a cancel that follows in the same breath finds it.
        self._attempts.add(attempt)
        asked.answer(attempt)
        return Reception.AWAITED

    def refused(self, refusal: RefusedTask) -> None:
        """Take in a refusal; one that no claim waits for means nothing."""
        asked = self._asked.get(refusal.claim_id)
        self._standing.refused(refusal.claim_id)
        if asked is not None and not asked.is_answered:
            log.info("claim.refused", extra={"task_id": refusal.task_id, "reason": refusal.reason})
            asked.answer(None)

    def _waiting_for(self, grant: GrantedTask) -> _Asked | None:
        if is_on(Safeguard.REPLAY):
            return self._asked.get(grant.claim_id)
        return next((asked for asked in self._asked.values() if asked.task_id == grant.work.task_id), None)

    async def _ask(self, claimed: ClaimedTask, asked: _Asked) -> None:
        """Send the claim once and wait for an answer, all in all as long as a claim may take."""
        loop = asyncio.get_running_loop()
        asked.waiting = loop.create_future()
        timer = loop.call_later(self._timeout, asked.wake)
        try:
            self._batcher.hand_in(claimed)
            await asked.waiting
        finally:
            timer.cancel()

    async def _publish(self, tasks: Sequence[ClaimedTask]) -> Sequence[None]:
        envelope = ClaimEnvelope(
            from_agent=str(self._agent_id),
            to_agent=ORCHESTRATOR,
            payload=Claim(agent_id=self._agent_id, tasks=list(tasks)),
        )
        # It expires when it is repeated or given up, so that no grant comes without a slot that waits.
        expires_after = timedelta(seconds=self._timeout)
        try:
            await self._broker.publish(
                reply(self._agent_id, CLAIMS, envelope, is_repeated=True, expires_after=expires_after)
            )
        except BrokerUnavailable as failure:  # it may have been stored all the same, so an answer may come
            log.debug("claim.not_stored", extra={"tasks": len(tasks), "reason": str(failure)})
        except Exception:  # the waiting slot asks again
            log.exception("claim.failed", extra={"tasks": len(tasks)})
        return [None] * len(tasks)

    def _remember(self, grant: GrantedTask) -> None:
        self._granted[grant.claim_id] = (grant.work.task_id, grant.fence)
        if len(self._granted) > REMEMBERED_GRANTS:
            self._granted.popitem(last=False)
