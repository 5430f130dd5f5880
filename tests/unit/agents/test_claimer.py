"""A claim is asked until it is answered, and an answer counts once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from agents.capacity import Capacity
from agents.claimer import Claimer, ClaimUnanswered, Reception
from agents.given import GivenWork
from agents.standing_claimer import StandingClaimer

from agents.attempts import Attempts
from agents.availability import Availability
from agents.signature_check import SignatureCheck
from agents.stopping import StopReason
from common.broker.base import BrokerUnavailable, Outgoing
from common.broker.memory import MemoryBroker
from common.clock import SystemClock
from common.loop import Health
from common.messages import Claim, ClaimedTask, GrantedTask, RefusedTask, Ticket, WorkRequest
from common.protocol import decode
from tests.eventually import eventually

AGENT = UUID(int=7)


class Recording(MemoryBroker):
    """Records the claims; `failures` of them are not stored."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: list[list[ClaimedTask]] = []
        self.failures = 0

    async def publish(self, *messages: Outgoing) -> None:
        for message in messages:
            payload = decode(message.body).payload
            assert isinstance(payload, Claim)
            self.claims.append(payload.tasks)
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailable("away")


class Asking:
    def __init__(self, claimer: Claimer, broker: Recording, attempts: Attempts, availability: Availability) -> None:
        self.claimer = claimer
        self.broker = broker
        self.attempts = attempts
        self.availability = availability


@asynccontextmanager
async def asking(*, timeout: float = 10.0) -> AsyncIterator[Asking]:
    broker, attempts, availability = Recording(), Attempts(), Availability()
    clock, capacity = SystemClock(), Capacity(4)
    signatures = SignatureCheck(None, AGENT, clock, skew=timedelta(0))
    standing = StandingClaimer(broker, AGENT, "infra", capacity, availability, clock, health=Health())
    given = GivenWork(lambda attempt: attempt.stop.wait(), capacity, availability, attempts)
    async with Claimer(
        broker, AGENT, attempts, clock, availability, signatures, standing, given, timeout=timedelta(seconds=timeout)
    ) as claimer:
        yield Asking(claimer, broker, attempts, availability)
        await given.stop()


def make_ticket() -> Ticket:
    return Ticket(task_id=uuid4(), work_type="echo", fence=4)


def make_grant(claimed: ClaimedTask) -> GrantedTask:
    return GrantedTask(
        claim_id=claimed.claim_id,
        work=WorkRequest(task_id=claimed.task_id, work_type="echo"),
        trace_id=uuid4(),
        request_id=uuid4(),
        attempt=1,
        fence=5,
        lease_seconds=60.0,
    )


async def test_a_repeated_claim_has_the_same_id() -> None:
    async with asking(timeout=0.05) as it:
        claiming = asyncio.create_task(it.claimer.claim(make_ticket()))
        await eventually(lambda: len(it.broker.claims) == 2)
        it.claimer.granted(make_grant(it.broker.claims[0][0]))

        assert (await claiming) is not None
        assert it.broker.claims[0] == it.broker.claims[1]


async def test_the_lease_counts_from_the_first_asking() -> None:
    async with asking(timeout=0.05) as it:
        asked_at = SystemClock().monotonic()
        claiming = asyncio.create_task(it.claimer.claim(make_ticket()))
        await eventually(lambda: len(it.broker.claims) == 3)
        it.claimer.granted(make_grant(it.broker.claims[0][0]))

        attempt = await claiming
        assert attempt is not None
        assert asked_at <= attempt.lease_until - 60.0 < asked_at + 0.05


async def test_claims_that_are_made_together_travel_together() -> None:
    async with asking() as it:
        claiming = [asyncio.create_task(it.claimer.claim(make_ticket())) for _ in range(5)]
        await eventually(lambda: sum(map(len, it.broker.claims)) == 5)
        for claimed in [task for tasks in it.broker.claims for task in tasks]:
            it.claimer.granted(make_grant(claimed))
        await asyncio.gather(*claiming)

        assert len(it.broker.claims) == 1


async def test_a_claim_survives_a_broker_that_is_away_for_a_moment() -> None:
    async with asking(timeout=0.05) as it:
        it.broker.failures = 1
        claiming = asyncio.create_task(it.claimer.claim(make_ticket()))
        await eventually(lambda: len(it.broker.claims) == 2)
        it.claimer.granted(make_grant(it.broker.claims[1][0]))

        assert (await claiming) is not None


async def test_a_claim_that_nobody_answers_is_given_up() -> None:
    async with asking(timeout=0.02) as it:
        with pytest.raises(ClaimUnanswered):
            await it.claimer.claim(make_ticket())

        assert len(it.broker.claims) == 3
        assert it.claimer.granted(make_grant(it.broker.claims[0][0])) is Reception.LATE
        assert len(it.attempts) == 0


async def test_an_agent_that_takes_nothing_new_does_not_ask_again() -> None:
    async with asking(timeout=0.02) as it:
        it.availability.drain()

        with pytest.raises(ClaimUnanswered):
            await it.claimer.claim(make_ticket())

        assert len(it.broker.claims) == 1


async def test_a_refusal_ends_the_asking() -> None:
    async with asking() as it:
        claiming = asyncio.create_task(it.claimer.claim(make_ticket()))
        await eventually(lambda: it.broker.claims)
        claimed = it.broker.claims[0][0]
        it.claimer.refused(RefusedTask(claim_id=claimed.claim_id, task_id=claimed.task_id, reason="taken"))

        assert (await claiming) is None


async def test_a_grant_is_known_before_the_next_order_is_read_and_counts_once() -> None:
    async with asking() as it:
        claiming = asyncio.create_task(it.claimer.claim(make_ticket()))
        await eventually(lambda: it.broker.claims)
        grant = make_grant(it.broker.claims[0][0])

        assert it.claimer.granted(grant) is Reception.AWAITED
        assert it.attempts.find(grant.work.task_id, grant.fence) is not None
        assert it.claimer.granted(grant) is Reception.DUPLICATE
        await claiming
        assert it.claimer.granted(grant) is Reception.DUPLICATE


async def test_a_cancel_that_overtook_its_grant_stops_it_before_it_starts() -> None:
    async with asking() as it:
        claiming = asyncio.create_task(it.claimer.claim(make_ticket()))
        await eventually(lambda: it.broker.claims)
        grant = make_grant(it.broker.claims[0][0])
        it.attempts.cancel(grant.work.task_id, grant.fence + 1, grace=1)
        it.attempts.cancel(grant.work.task_id, grant.fence, grace=1)

        it.claimer.granted(grant)

        attempt = await claiming
        assert attempt is not None
        assert attempt.stop.reason is StopReason.CANCELLED


async def test_a_cancel_of_another_fence_does_not_stop_a_later_grant() -> None:
    async with asking() as it:
        claiming = asyncio.create_task(it.claimer.claim(make_ticket()))
        await eventually(lambda: it.broker.claims)
        grant = make_grant(it.broker.claims[0][0])
        it.attempts.cancel(grant.work.task_id, grant.fence - 1, grace=1)

        it.claimer.granted(grant)

        attempt = await claiming
        assert attempt is not None
        assert attempt.stop.reason is None
