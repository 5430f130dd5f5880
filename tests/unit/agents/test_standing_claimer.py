"""Standing claims: they are sent when a slot is free, asked about, and answered work begins once or goes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from agents.capacity import Capacity
from agents.claimer import Claimer, Reception
from agents.given import GivenWork
from agents.open_standing_claims import ASKED_AFTER, KEPT_FOR
from agents.standing_claimer import StandingClaimer

from agents import given
from agents.attempts import Attempts
from agents.availability import Availability
from agents.signature_check import SignatureCheck
from common.broker.base import BrokerUnavailable, Outgoing
from common.broker.memory import MemoryBroker
from common.loop import Health
from common.messages import Claim, GrantedTask, RefusedTask
from common.protocol import decode
from tests.eventually import eventually
from tests.factories import make_grant
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.path_internals

AGENT = UUID(int=7)


class Bus(MemoryBroker):
    """Records what is claimed."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: list[Claim] = []
        self.is_away = False

    async def publish(self, *messages: Outgoing) -> None:
        if self.is_away:
            raise BrokerUnavailable("away")
        self.claims += [cast("Claim", decode(message.body).payload) for message in messages]

    @property
    def standing(self) -> list[UUID]:
        return [claim_id for claim in self.claims for claim_id in claim.standing]

    @property
    def withdrawn(self) -> list[UUID]:
        return [claim_id for claim in self.claims for claim_id in claim.withdrawn]


class Idle:
    """An agent of four slots that may claim in advance."""

    def __init__(self, *, is_genuine: bool = True) -> None:
        self.bus, self.availability, self.clock, self.capacity = Bus(), Availability(), FakeClock(), Capacity(4)
        self.attempts = Attempts()
        self.ran: list[UUID] = []
        self.handed_back: list[UUID] = []
        self.end = asyncio.Event()
        self.standing = StandingClaimer(
            self.bus, AGENT, "infra", self.capacity, self.availability, self.clock, health=Health()
        )
        self.given = GivenWork(self._run, self.capacity, self.availability, self.attempts)
        signatures = cast("SignatureCheck", Signatures(is_genuine))
        self.claimer = Claimer(
            self.bus,
            AGENT,
            self.attempts,
            self.clock,
            self.availability,
            signatures,
            self.standing,
            self.given,
            timeout=timedelta(seconds=5),
        )

    async def _run(self, attempt: Any) -> None:
        if attempt.stop.reason is not None:
            self.handed_back.append(attempt.task_id)
            return
        self.ran.append(attempt.task_id)
        await self.end.wait()
        self.attempts.remove(attempt)

    def work_ends(self) -> None:
        self.capacity.take()
        self.capacity.release()

    async def claim(self) -> UUID:
        """Have some work end, and return the claim that is made."""
        before = len(self.bus.standing)
        self.work_ends()
        await eventually(lambda: len(self.bus.standing) > before)
        return self.bus.standing[before]


class Signatures:
    def __init__(self, is_genuine: bool) -> None:
        self._is_genuine = is_genuine

    def is_genuine(self, grant: GrantedTask, signature: object) -> bool:
        return self._is_genuine


@asynccontextmanager
async def idle(*, most: int = 8, is_genuine: bool = True) -> AsyncIterator[Idle]:
    it = Idle(is_genuine=is_genuine)
    it.standing.allow(most)
    running = asyncio.create_task(it.standing.run())
    try:
        yield it
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await it.given.stop()


async def test_an_agent_whose_work_ends_claims_what_comes_next() -> None:
    async with idle() as it:
        claim_id = await it.claim()
        assert it.bus.claims == [Claim(agent_id=AGENT, agent_type="infra", standing=[claim_id])]


async def test_nothing_is_claimed_in_advance_from_an_orchestrator_that_does_not_know_of_it() -> None:
    async with idle(most=0) as it:
        it.work_ends()
        await asyncio.sleep(0.05)
        assert it.bus.claims == []


async def test_nothing_is_claimed_while_the_agent_takes_no_work() -> None:
    async with idle() as it:
        it.availability.pause(datetime.now(UTC) + timedelta(seconds=60), ordered_at=datetime.now(UTC))
        it.work_ends()
        await asyncio.sleep(0.05)
        assert it.bus.claims == []


async def test_what_is_granted_begins_at_once_and_once() -> None:
    async with idle() as it:
        grant = make_grant(claim_id=await it.claim())

        assert it.claimer.granted(grant) is Reception.AWAITED
        assert it.claimer.granted(grant) is Reception.DUPLICATE

        await eventually(lambda: it.ran == [grant.work.task_id])
        attempt = it.attempts.find(grant.work.task_id, grant.fence)
        assert attempt is not None
        assert attempt.lease_until == it.clock.monotonic() + grant.lease_seconds, "it counts from the claim"


async def test_a_second_task_for_the_same_claim_goes_back() -> None:
    async with idle() as it:
        claim_id = await it.claim()
        first = make_grant(claim_id=claim_id)
        it.claimer.granted(first)

        assert it.claimer.granted(make_grant(claim_id=claim_id, task_id=uuid4())) is Reception.LATE
        await eventually(lambda: it.ran == [first.work.task_id])


async def test_what_is_granted_when_the_agent_takes_no_more_work_goes_back() -> None:
    async with idle() as it:
        claim_id = await it.claim()
        it.availability.drain()
        assert it.claimer.granted(make_grant(claim_id=claim_id)) is Reception.LATE
        assert it.ran == []
        assert [it.capacity.take() for _ in range(4)] == [True] * 4, "its slot is for anybody"


async def test_a_slot_is_kept_for_each_claim_until_it_counts_no_longer() -> None:
    async with idle() as it:
        await it.claim()
        assert [it.capacity.take() for _ in range(4)] == [True, True, True, False]
        it.clock.advance(seconds=KEPT_FOR)
        it.standing._news.ring()
        await eventually(it.capacity.take)


async def test_what_is_granted_for_a_claim_has_its_slot_however_much_else_has_come() -> None:
    async with idle() as it:
        claim_id = await it.claim()
        while it.capacity.take():
            pass
        grant = make_grant(claim_id=claim_id)
        assert it.claimer.granted(grant) is Reception.AWAITED
        await eventually(lambda: it.ran == [grant.work.task_id])
        assert it.capacity.free == 0


async def test_what_is_granted_later_and_finds_no_slot_goes_back_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "PATIENCE", 0.02)
    async with idle() as it:
        claim_id = await it.claim()
        it.clock.advance(seconds=KEPT_FOR)
        it.standing._news.ring()
        await asyncio.sleep(0.02)
        while it.capacity.take():
            pass
        grant = make_grant(claim_id=claim_id)
        assert it.claimer.granted(grant) is Reception.AWAITED
        await eventually(lambda: it.handed_back == [grant.work.task_id])


async def test_the_slot_of_a_claim_that_was_refused_is_for_anybody() -> None:
    async with idle() as it:
        claim_id = await it.claim()
        it.claimer.refused(RefusedTask(claim_id=claim_id, task_id=None, reason="nothing was leased to this claim"))
        assert [it.capacity.take() for _ in range(4)] == [True] * 4


async def test_a_forged_grant_for_a_claim_of_nobody_is_nothing() -> None:
    async with idle(is_genuine=False) as it:
        assert it.claimer.granted(make_grant(claim_id=uuid4())) is Reception.FORGED


async def test_a_claim_that_nobody_answers_is_asked_about_until_somebody_does() -> None:
    async with idle() as it:
        claim_id = await it.claim()
        it.clock.advance(seconds=ASKED_AFTER)
        it.bus.is_away = True
        it.standing._news.ring()
        await asyncio.sleep(0.02)
        it.bus.is_away = False
        it.clock.advance(seconds=ASKED_AFTER)
        it.standing._news.ring()
        await eventually(lambda: it.bus.withdrawn == [claim_id])

        it.claimer.refused(RefusedTask(claim_id=claim_id, task_id=None, reason="nothing was leased to this claim"))
        it.clock.advance(seconds=100)
        it.standing._news.ring()
        await asyncio.sleep(0.02)
        assert it.bus.withdrawn == [claim_id]


async def test_a_grant_that_was_lost_and_is_sent_again_begins() -> None:
    async with idle() as it:
        claim_id = await it.claim()
        it.clock.advance(seconds=ASKED_AFTER)
        it.standing._news.ring()
        await eventually(lambda: it.bus.withdrawn == [claim_id])

        grant = make_grant(claim_id=claim_id)
        assert it.claimer.granted(grant) is Reception.AWAITED
        await eventually(lambda: it.ran == [grant.work.task_id])


async def test_who_leaves_waits_for_what_became_of_its_claims() -> None:
    async with idle() as it:
        claim_id = await it.claim()
        leaving = asyncio.create_task(it.standing.withdraw(within=5))
        await eventually(lambda: it.bus.withdrawn == [claim_id])
        assert not leaving.done()
        it.claimer.refused(RefusedTask(claim_id=claim_id, task_id=None, reason="nothing was leased to this claim"))
        assert await leaving


async def test_who_leaves_does_not_wait_for_ever() -> None:
    async with idle() as it:
        await it.claim()
        assert not await it.standing.withdraw(within=0.02)
