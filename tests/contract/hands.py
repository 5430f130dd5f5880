"""Workers that do just what a test tells them: one that speaks through a broker, one that speaks HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID, uuid4

from chiffon.errors import ApiError
from chiffon.http import Http
from common.broker.base import Broker, Consumer, Outgoing
from common.broker.topology import HEARTBEATS, RESULTS, control_queue, reply_address, work_queue
from common.messages import AgentStatus, Credit, Grant, Lease, ResultStatus, Stored, Stream, WorkResult
from common.orders import Heard, Order
from common.protocol import (
    ControlEnvelope,
    Envelope,
    StatusUpdateEnvelope,
    WorkRequestEnvelope,
    WorkResultEnvelope,
    decode,
    encode,
)
from tests.factories import make_heartbeat

PATIENCE = 20.0


@dataclass(frozen=True)
class Held:
    """A task that a worker has taken. `ask` is what it asked with over HTTP."""

    task_id: UUID
    attempt: int
    ask: dict[str, Any] = field(default_factory=dict)


class Hand(Protocol):
    """A worker with one slot."""

    async def take(self) -> Held:
        """Ask for work, and wait for it."""
        ...

    async def ask_again(self, held: Held) -> Held:
        """Ask as before, as a worker does that never heard the answer."""
        ...

    async def finish(self, held: Held, output: str) -> None:
        """Report success, and return when the report has been dealt with, whether it counted or not."""
        ...


class BrokerHand:
    """Speaks the messages of an agent. It has room for a task only while `take` waits for one."""

    def __init__(self, broker: Broker, pool: str, agent_id: UUID, work: Consumer, control: Consumer) -> None:
        self._broker = broker
        self._pool = pool
        self.agent_id = agent_id
        self._work = work
        self._control = control
        self._credit = Credit(session=uuid4(), number=1, limit=0)

    @classmethod
    @asynccontextmanager
    async def open(cls, broker: Broker, pool: str) -> AsyncIterator["BrokerHand"]:
        agent_id = uuid4()
        work_of_its_own, orders = work_queue(pool, agent_id), control_queue(agent_id)
        await broker.declare(work_of_its_own, orders)
        async with (
            broker.consume(work_of_its_own.name, prefetch=1) as work,
            broker.consume(orders.name, prefetch=10) as control,
        ):
            hand = cls(broker, pool, agent_id, work, control)
            await hand.beat()
            yield hand

    async def beat(self, **credit: int) -> None:
        """Send a heartbeat that says this of its credit, and return when it was heard."""
        self._credit = self._credit.model_copy(update={"number": self._credit.number + 1, **credit})
        beat = make_heartbeat(
            self.agent_id,
            agent_type=self._pool,
            work_types=[],
            beat_id=uuid4(),
            boot_id=self._credit.session,
            credit=self._credit,
        )
        await self._say(HEARTBEATS, StatusUpdateEnvelope(**self._from(), payload=beat))
        while not (isinstance(order := await self._order(), Heard) and order.beat_id == beat.beat_id):
            pass
        self._credit = self._credit.model_copy(update={"heard": order.granted or 0})

    async def leave(self) -> None:
        """Say goodbye."""
        beat = make_heartbeat(
            self.agent_id, agent_type=self._pool, boot_id=self._credit.session, status=AgentStatus.OFFLINE
        )
        await self._say(HEARTBEATS, StatusUpdateEnvelope(**self._from(), payload=beat))

    async def take(self) -> Held:
        await self.beat(limit=self._credit.limit + 1)
        return await self.receive()

    async def receive(self) -> Held:
        """Wait for the next task that it is granted."""
        envelope = await self.next_work()
        grant: Grant = envelope.payload
        [task] = grant.tasks
        assert task.claim_id == self._credit.session
        self._credit = self._credit.model_copy(update={"received": self._credit.received + 1})
        return Held(task.work.task_id, task.attempt)

    async def next_work(self) -> WorkRequestEnvelope:
        """Wait for the next message in its queue of work."""
        async with asyncio.timeout(PATIENCE):
            [delivery] = await self._work.receive()
        await self._work.ack(delivery)
        envelope = decode(delivery.body)
        assert isinstance(envelope, WorkRequestEnvelope)
        return envelope

    async def ask_again(self, held: Held) -> Held:
        # As if the grant had never come: it was told of it only in the answer to its heartbeat.
        await self.beat(received=self._credit.received - 1)
        await self.beat()
        return await self.receive()

    async def finish(self, held: Held, output: str) -> None:
        result = WorkResult(
            task_id=held.task_id,
            status=ResultStatus.COMPLETED,
            output=output,
            duration_ms=1,
            agent_id=self.agent_id,
            attempt=held.attempt,
            output_bytes={Stream.STDOUT: len(output)},
        )
        await self._say(RESULTS, WorkResultEnvelope(**self._from(), payload=result))
        mine = Lease(task_id=held.task_id, attempt=held.attempt)
        while not (isinstance(order := await self._order(), Stored) and mine in order.results):
            pass

    def _from(self) -> dict[str, str]:
        return {"from_agent": str(self.agent_id), "to_agent": "orchestrator"}

    async def _say(self, queue: str, envelope: Envelope) -> None:
        await self._broker.publish(Outgoing(reply_address(self.agent_id, queue), encode(envelope), envelope.type))

    async def _order(self) -> Order:
        """Return the next thing that the orchestrator tells this worker."""
        async with asyncio.timeout(PATIENCE):
            [delivery] = await self._control.receive()
        await self._control.ack(delivery)
        envelope = decode(delivery.body)
        assert isinstance(envelope, ControlEnvelope)
        return envelope.payload.order


class HttpHand:
    """Speaks the queue API."""

    def __init__(self, http: Http, work_type: str, *, lease: float) -> None:
        self._http = http
        self._name = f"hand-{uuid4()}"
        self._work_type = work_type
        self._lease = lease

    async def register(self, pool: str) -> None:
        """Report itself as a worker of a pool."""
        await self._http.post(f"/api/queue/workers/{self._name}/heartbeat", {"agentType": pool}, repeatable=True)

    async def take(self) -> Held:
        return await self._claim(
            {
                "workerId": self._name,
                "claimId": str(uuid4()),
                "leaseSeconds": self._lease,
                "allowedTypes": [self._work_type],
                "waitSeconds": PATIENCE,
            }
        )

    async def ask_again(self, held: Held) -> Held:
        return await self._claim(held.ask)

    async def finish(self, held: Held, output: str) -> None:
        body = {"workerId": self._name, "attempt": held.attempt, "resultSummary": output}
        try:
            await self._http.post(f"/api/queue/jobs/{held.task_id}/complete", body, repeatable=True)
        except ApiError as refused:
            if refused.status != 409:
                raise

    async def _claim(self, ask: dict[str, Any]) -> Held:
        job = (await self._http.post("/api/queue/jobs/claim", ask, repeatable=True))["job"]
        assert job is not None
        return Held(UUID(job["id"]), job["attempt"], ask)
