"""As many jobs are claimed as the agent asks for, and what it does not get goes back."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from agents.identity.registration import Identity
from agents.over_http.client import QueueClient
from agents.over_http.handing_back import HandingBack
from agents.over_http.held import HeldJob, HeldJobs
from agents.over_http.inbox import Inbox
from agents.over_http.job_claimer import JobClaimer
from agents.over_http.leases import Leases
from common.broker.memory import MemoryBroker
from common.loop import Health
from common.rest.jobs import ClaimAnswer, HeartbeatAnswer
from tests.eventually import eventually
from tests.factories import make_job
from tests.fakes.clock import FakeClock

LEASE = 30


def renewed(*, cancelled: bool) -> httpx2.Response:
    answer = HeartbeatAnswer(**dict(make_job()), cancelled=cancelled)
    return httpx2.Response(200, json=answer.model_dump(mode="json", by_alias=True))


class Desk:
    """The claimer of an agent whose server has `jobs`, and answers renewals with `renewal`.

    Unless it `takes_back` jobs, it needs half a lease to say that it cannot.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.ends: list[dict[str, Any]] = []
        self.jobs = 0
        self.renewal = renewed(cancelled=False)
        self.takes_back = True
        self.clock = FakeClock()
        http = httpx2.AsyncClient(base_url="http://server", transport=httpx2.MockTransport(self._answer))
        client = QueueClient(http, uuid4(), lease_seconds=LEASE)
        identity = Identity(
            agent_id=uuid4(),
            agent_type="infra",
            hostname="host",
            version="1",
            work_types=("echo",),
            slots=4,
            started_at=datetime.now(UTC),
        )
        self.held = HeldJobs()
        self.handing_back = HandingBack(client, self.held, self.clock)
        self.inbox = Inbox(MemoryBroker(), identity)
        self.leases = Leases(client, self.held, self.handing_back, self.inbox, self.clock)
        self.claimer = JobClaimer(
            client,
            self.held,
            self.handing_back,
            self.clock,
            types=["echo"],
            wait=timedelta(seconds=1),
            deliver=self.leases.bring,
            health=Health(),
        )

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.requests.append(path)
        if path.endswith("/heartbeat"):
            return self.renewal
        if not path.endswith("/claim"):
            self.ends.append(json.loads(request.content))
            if self.takes_back:
                return httpx2.Response(200, json={})
            self.clock.advance(seconds=LEASE / 2)
            return httpx2.Response(503)
        if not self.jobs:
            await asyncio.Event().wait()
        self.jobs -= 1
        return httpx2.Response(200, json=ClaimAnswer(job=make_job()).model_dump(mode="json", by_alias=True))

    @property
    def claims(self) -> int:
        return sum(path.endswith("/claim") for path in self.requests)

    def job(self) -> HeldJob:
        held = HeldJob(make_job(), lease_from=self.clock.monotonic(), claim_id=uuid4())
        self.held.add(held)
        return held

    async def delivered(self) -> list[UUID]:
        """Return the jobs that are in the agent's work queue, and take them out."""
        return [task.work.task_id for task in await self.inbox.take_unread_work()]

    async def was_returned(self, held: HeldJob) -> bool:
        await self.handing_back.settled(within=1)
        return f"/api/queue/jobs/{held.job.id}/fail" in self.requests and not len(self.held)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    running = asyncio.create_task(desk.claimer.run())
    yield desk
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await desk.handing_back.settled(within=0)


async def test_no_more_jobs_are_claimed_than_the_agent_asks_for(desk: Desk) -> None:
    desk.jobs = 10
    desk.claimer.open()
    desk.claimer.allow(3)
    await eventually(lambda: len(desk.held) == 3)
    desk.claimer.allow(2)

    desk.claimer.allow(5)
    await eventually(lambda: len(desk.held) == 5)

    assert desk.claims == 5
    assert len(await desk.delivered()) == 5


async def test_side_by_side_no_more_jobs_are_claimed_than_the_agent_asks_for(desk: Desk) -> None:
    desk.jobs = 1
    desk.claimer.open()
    desk.claimer.allow(1)
    await eventually(lambda: len(desk.held) == 1)

    # It got one at once, so it would send two claims beside each other.
    desk.claimer.allow(2)
    await eventually(lambda: desk.claims >= 2)
    for _ in range(100):
        await asyncio.sleep(0)

    assert desk.claims == 2


async def test_a_job_is_handed_back_again_and_again_until_its_lease_has_ended(desk: Desk) -> None:
    desk.takes_back = False
    job = desk.job()

    desk.handing_back.give(job)
    await desk.handing_back.settled(within=5)

    assert len(desk.ends) == 2
    assert len(desk.held) == 0


async def test_nothing_is_claimed_before_the_agent_may_and_asks(desk: Desk) -> None:
    desk.jobs = 10
    desk.claimer.allow(1)
    await asyncio.sleep(0)
    assert desk.claims == 0

    desk.claimer.open()

    await eventually(lambda: len(desk.held) == 1)


async def test_who_takes_no_work_any_more_gives_up_its_claims_and_asks_what_they_got(desk: Desk) -> None:
    desk.claimer.open()
    desk.claimer.allow(1)
    await eventually(lambda: desk.claims == 1)
    desk.jobs = 10

    desk.claimer.close()

    await eventually(lambda: any(path.endswith("/fail") for path in desk.requests))
    assert desk.claims == 2
    assert await desk.delivered() == []


async def test_a_job_that_was_cancelled_meanwhile_does_not_reach_the_agent(desk: Desk) -> None:
    desk.renewal = renewed(cancelled=True)
    job = desk.job()
    desk.clock.advance(seconds=LEASE / 2)

    assert not await desk.leases.bring(job)

    assert await desk.was_returned(job)
    assert [end["cancelled"] for end in desk.ends] == [True]
    assert await desk.delivered() == []


async def test_a_job_whose_lease_is_old_is_renewed_before_the_agent_gets_it(desk: Desk) -> None:
    fresh, old = desk.job(), desk.job()
    await desk.leases.bring(fresh)
    assert desk.requests == []
    desk.clock.advance(seconds=LEASE / 2)

    assert await desk.leases.bring(old)

    assert desk.requests == [f"/api/queue/jobs/{old.job.id}/heartbeat"]
    assert old.lease_from == desk.clock.monotonic()
    assert await desk.delivered() == [fresh.job.id, old.job.id]


async def test_a_job_that_went_to_another_meanwhile_is_forgotten(desk: Desk) -> None:
    desk.renewal = httpx2.Response(409, json={"error_code": 2002, "error_message": "it is another's"})
    job = desk.job()
    desk.clock.advance(seconds=LEASE / 2)

    assert not await desk.leases.bring(job)

    assert (len(desk.held), await desk.delivered()) == (0, [])


async def test_a_job_that_cannot_be_renewed_goes_back(desk: Desk) -> None:
    desk.renewal = httpx2.Response(503)
    job = desk.job()
    desk.clock.advance(seconds=LEASE / 2)

    assert not await desk.leases.bring(job)

    assert await desk.was_returned(job)
    assert [end["started"] for end in desk.ends] == [False]
    assert await desk.delivered() == []


async def test_a_job_that_is_not_delivered_is_none_of_those_that_the_agent_asked_for(desk: Desk) -> None:
    desk.jobs = 1
    desk.claimer.open()
    desk.claimer._deliver = _refuse
    desk.claimer.allow(1)
    await eventually(lambda: len(desk.held) == 1)
    desk.claimer._deliver = desk.leases.bring
    desk.jobs = 1

    await eventually(lambda: len(desk.held) == 2)

    assert len(await desk.delivered()) == 1


async def _refuse(held: HeldJob) -> bool:
    return False
