"""What the agent says over HTTP makes it claim jobs, and what it does not read of them goes back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx2
import pytest

from agents.identity.registration import Identity
from agents.link.replies import reply
from agents.over_http.broker import OverHttp
from agents.over_http.client import QueueClient
from common.broker.base import Delivery
from common.broker.memory import MemoryBroker
from common.broker.topology import HEARTBEATS, PROGRESS, RESULTS, control_queue, work_queue
from common.clock import SystemClock
from common.messages import AgentStatus, Credit
from common.orders import FilePiece, Settle
from common.protocol import (
    ORCHESTRATOR,
    ControlEnvelope,
    StatusUpdateEnvelope,
    WantFileEnvelope,
    WorkRequestEnvelope,
    WorkResultsEnvelope,
    decode,
)
from common.rest.jobs import ClaimAnswer
from tests.eventually import eventually
from tests.factories import make_credit, make_heartbeat, make_job, make_results, make_want

AGENT = UUID(int=7)


class Way:
    """The agent's side; the server has `jobs`, whose ids are `claimed` in their order."""

    def __init__(self) -> None:
        self.jobs = 0
        self.claims = 0
        self.claimed: list[UUID] = []
        self.failed: list[str] = []
        self.unsettled: list[tuple[UUID, int]] = []
        http = httpx2.AsyncClient(base_url="http://server", transport=httpx2.MockTransport(self._answer))
        identity = Identity(
            agent_id=AGENT,
            agent_type="infra",
            hostname="host",
            version="1",
            work_types=("echo",),
            slots=4,
            started_at=datetime.now(UTC),
        )
        client = QueueClient(http, AGENT, lease_seconds=30)
        self.broker = OverHttp(client, identity, SystemClock(), wait=timedelta(seconds=1), local=MemoryBroker())

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if "/workers/" in path:
            settle = [{"jobId": str(task_id), "attempt": attempt} for task_id, attempt in self.unsettled]
            return httpx2.Response(200, json={"orders": [], "cancelled": [], "settle": settle})
        if path.endswith("/files"):
            nothing = {"offset": 0, "size": 0, "sha256": "", "data": "", "problem": "there is no such file"}
            return httpx2.Response(200, json=nothing)
        if not path.endswith("/claim"):
            self.failed += [path.split("/")[-2]] if json.loads(request.content).get("started") is False else []
            return httpx2.Response(200, json={})
        self.claims += 1
        if not json.loads(request.content)["allowedTypes"]:  # it asks what became of another
            return httpx2.Response(200, json={"job": None})
        if not self.jobs:
            await asyncio.Event().wait()
        self.jobs -= 1
        job = make_job()
        self.claimed.append(job.id)
        return httpx2.Response(200, json=ClaimAnswer(job=job).model_dump(mode="json", by_alias=True))

    async def beat(self, credit: Credit | None, *, status: AgentStatus = AgentStatus.ONLINE) -> None:
        payload = make_heartbeat(AGENT, status=status, credit=credit, beat_id=uuid4())
        envelope = StatusUpdateEnvelope(from_agent=str(AGENT), to_agent=ORCHESTRATOR, payload=payload)
        await self.broker.publish(reply(AGENT, HEARTBEATS, envelope, is_repeated=True))

    async def report(self, credit: Credit) -> None:
        payload = make_results(AGENT, 1).model_copy(update={"credit": credit})
        envelope = WorkResultsEnvelope(from_agent=str(AGENT), to_agent=ORCHESTRATOR, payload=payload)
        await self.broker.publish(reply(AGENT, RESULTS, envelope, is_repeated=False))

    async def orders(self) -> list[object]:
        """Return what the agent was told, in order."""
        queue = control_queue(AGENT).name
        orders: list[object] = []
        async with self.broker.consume(queue, prefetch=100) as consumer:
            while await self.broker.depth(queue):
                deliveries = await consumer.receive(100)
                envelopes = [decode(delivery.body) for delivery in deliveries]
                orders += [one.payload.order for one in envelopes if isinstance(one, ControlEnvelope)]
                await consumer.ack(*deliveries)
        return orders

    async def work(self, count: int) -> list[Delivery]:
        deliveries: list[Delivery] = []
        async with self.broker.consume(work_queue("infra", AGENT).name, prefetch=100) as consumer:
            while len(deliveries) < count:
                deliveries += await consumer.receive(100)
            await consumer.ack(*deliveries)
        return deliveries


@pytest.fixture
async def way() -> AsyncIterator[Way]:
    async with _running() as way:
        yield way


@asynccontextmanager
async def _running() -> AsyncIterator[Way]:
    way = Way()
    running = asyncio.create_task(way.broker.run())
    yield way
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await way.broker.close()


async def test_jobs_are_claimed_as_heartbeats_and_results_ask_for_them(way: Way) -> None:
    way.jobs = 10
    await way.beat(make_credit(limit=2))
    await eventually(lambda: len(way.claimed) == 2)

    await way.report(make_credit(limit=3, number=2))

    await eventually(lambda: len(way.claimed) == 3)
    deliveries = await way.work(3)
    envelopes = [decode(delivery.body) for delivery in deliveries]
    grants = [one.payload.tasks[0] for one in envelopes if isinstance(one, WorkRequestEnvelope)]
    assert sorted(grant.work.task_id for grant in grants) == sorted(way.claimed)
    for grant in grants:
        assert way.broker.claim_of(grant) == grant.claim_id
        assert way.broker.asked_at(grant, None) is not None


async def test_a_job_that_is_not_held_was_not_asked_for(way: Way) -> None:
    way.jobs = 1
    await way.beat(make_credit(limit=1))
    [delivery] = await way.work(1)
    envelope = decode(delivery.body)
    assert isinstance(envelope, WorkRequestEnvelope)
    grant = envelope.payload.tasks[0].model_copy(update={"attempt": 2})

    assert (way.broker.claim_of(grant), way.broker.asked_at(grant, None)) == (None, None)


async def test_an_agent_that_leaves_claims_nothing_more(way: Way) -> None:
    await way.beat(make_credit(limit=1))
    await eventually(lambda: way.claims == 1)
    await way.beat(make_credit(limit=1, number=2), status=AgentStatus.DRAINING)
    await eventually(lambda: way.claims == 2)  # what became of the first

    await way.report(make_credit(limit=2, number=3))
    for _ in range(3):
        await way.beat(make_credit(limit=2, number=4), status=AgentStatus.DRAINING)

    assert way.claims == 2


async def test_a_job_that_the_agent_did_not_read_goes_back_when_it_leaves() -> None:
    async with _running() as way:
        way.jobs = 1
        await way.beat(make_credit(limit=1))
        await eventually(lambda: way.claimed)
        await eventually(lambda: _has_work(way))

    assert way.failed == [str(job_id) for job_id in way.claimed]


async def test_an_agent_is_told_of_what_it_is_to_say_how_it_ended(way: Way) -> None:
    way.unsettled = [(uuid4(), 1), (uuid4(), 3)]

    await way.beat(make_credit(limit=0))

    settle = [order for order in await way.orders() if isinstance(order, Settle)]
    assert [(order.task_id, order.attempt) for order in settle] == way.unsettled


async def test_an_agent_that_wants_a_file_is_answered_in_its_own_queue(way: Way) -> None:
    want = make_want(AGENT)
    envelope = WantFileEnvelope(from_agent=str(AGENT), to_agent=ORCHESTRATOR, payload=want)

    await way.broker.publish(reply(AGENT, PROGRESS, envelope, is_repeated=False))

    assert await way.orders() == [FilePiece(want_id=want.want_id, problem="there is no such file")]


async def _has_work(way: Way) -> bool:
    return await way.broker.depth(work_queue("infra", AGENT).name) == 1
