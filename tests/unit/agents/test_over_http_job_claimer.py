"""Who gets a job that was claimed, and what becomes of one that nobody wants any more."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import httpx2
import pytest
from agents.over_http.tickets import TicketConsumer

from agents.over_http.client import QueueClient
from agents.over_http.handing_back import HandingBack
from agents.over_http.held import HeldJob, HeldJobs
from agents.over_http.job_claimer import JobClaimer
from common.broker.base import ConsumerCancelled
from common.clock import SystemClock
from common.loop import Health
from common.messages import Ticket
from common.protocol import TicketEnvelope, decode
from tests.eventually import eventually
from tests.factories import make_job

Result = TypeVar("Result")


class Desk:
    """The claimer of an agent whose server answers every report with success."""

    def __init__(self) -> None:
        self.reports: list[str] = []
        http = httpx2.AsyncClient(base_url="http://server", transport=httpx2.MockTransport(self._answer))
        client = QueueClient(http, uuid4(), lease_seconds=30)
        self.held = HeldJobs()
        self.handing_back = HandingBack(client, self.held, SystemClock())
        self.claimer = JobClaimer(
            client,
            self.held,
            self.handing_back,
            SystemClock(),
            types=["echo"],
            wait=timedelta(seconds=1),
            health=Health(),
        )

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.reports.append(request.url.path)
        return httpx2.Response(200, json={})

    def job(self) -> HeldJob:
        held = HeldJob(make_job(), lease_from=SystemClock().monotonic(), claim_id=uuid4())
        self.held.add(held)
        return held

    def consumer(self) -> TicketConsumer:
        return TicketConsumer(self.claimer, self.handing_back, agent_type="infra")

    async def returned(self, held: HeldJob) -> bool:
        await self.handing_back.settled(within=1)
        return f"/api/queue/jobs/{held.job.id}/fail" in self.reports and not len(self.held)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    await desk.handing_back.settled(within=0)


async def _waiting(waits: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """Let somebody begin to wait."""
    task = asyncio.create_task(waits)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_jobs_go_to_slots_in_the_order_in_which_they_wait(desk: Desk) -> None:
    first, second = await _waiting(desk.claimer.next_job()), await _waiting(desk.claimer.next_job())
    jobs = [desk.job(), desk.job()]

    for job in jobs:
        desk.claimer.hand_out(job)

    assert [await first, await second] == jobs


async def test_a_job_of_a_slot_that_gave_up_in_the_same_moment_goes_to_the_next(desk: Desk) -> None:
    leaver, stayer = await _waiting(desk.consumer().receive()), await _waiting(desk.claimer.next_job())
    job = desk.job()

    desk.claimer.hand_out(job)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)

    assert await stayer is job


async def test_a_job_that_no_slot_wants_any_more_goes_back(desk: Desk) -> None:
    leaver = await _waiting(desk.consumer().receive())
    job = desk.job()

    desk.claimer.hand_out(job)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    await eventually(lambda: desk.reports)

    assert await desk.returned(job)


async def test_a_ticket_that_was_not_granted_goes_back_with_its_consumer(desk: Desk) -> None:
    consumer = desk.consumer()
    receiving = await _waiting(consumer.receive())
    job = desk.job()
    desk.claimer.hand_out(job)
    [delivery] = await receiving
    envelope = decode(delivery.body)

    await consumer.close()

    assert isinstance(envelope, TicketEnvelope)
    assert envelope.payload == Ticket(task_id=job.job.id, work_type="echo", fence=1)
    assert await desk.returned(job)


async def test_a_job_that_was_granted_is_not_given_back_with_its_consumer(desk: Desk) -> None:
    consumer = desk.consumer()
    receiving = await _waiting(consumer.receive())
    job = desk.job()
    desk.claimer.hand_out(job)
    await receiving
    job.is_granted = True

    await consumer.close()
    await desk.handing_back.settled(within=1)

    assert desk.reports == []
    assert list(desk.held) == [job]


async def test_a_consumer_that_is_cancelled_takes_no_more(desk: Desk) -> None:
    consumer = desk.consumer()
    waiting = await _waiting(consumer.receive())

    await consumer.cancel()

    for receiving in (waiting, consumer.receive()):
        with pytest.raises(ConsumerCancelled):
            await receiving
