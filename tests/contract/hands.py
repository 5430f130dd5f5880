"""Workers that do just what a test tells them: one that speaks through a broker, one that speaks HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID, uuid4

from chiffon.errors import ApiError
from chiffon.http import Http
from common.broker.base import Broker, Consumer, Delivery, Outgoing
from common.broker.topology import CLAIMS, HEARTBEATS, RESULTS, control_queue, reply_address, work_queue
from common.messages import (
    Claim,
    ClaimedTask,
    Grant,
    GrantedTask,
    Lease,
    Refusal,
    ResultStatus,
    Stored,
    Stream,
    Ticket,
    WorkResult,
)
from common.orders import Heard
from common.protocol import (
    ClaimEnvelope,
    ControlEnvelope,
    Envelope,
    StatusUpdateEnvelope,
    TicketEnvelope,
    WorkResultEnvelope,
    decode,
    encode,
)
from tests.factories import make_heartbeat

PATIENCE = 20.0


@dataclass(frozen=True)
class Held:
    """A task that a worker has taken. `ask` is what it asked with, `ticket` the message that told it to, if any."""

    task_id: UUID
    attempt: int
    fence: int
    ask: ClaimedTask | dict[str, Any]
    ticket: Delivery | None = None


class Hand(Protocol):
    """A worker with one slot."""

    async def take(self) -> Held | None:
        """Follow one hint that there is work, waiting for it; None when another has the task."""
        ...

    async def ask_again(self, held: Held) -> Held | None:
        """Ask as before, as a worker does that never heard the answer."""
        ...

    async def finish(self, held: Held, output: str) -> None:
        """Report success, and return when the report has been dealt with, whether it counted or not."""
        ...


class BrokerHand:
    """Speaks the messages of an agent."""

    def __init__(self, broker: Broker, agent_id: UUID, work: Consumer, control: Consumer) -> None:
        self._broker = broker
        self._agent_id = agent_id
        self._work = work
        self._control = control

    @classmethod
    @asynccontextmanager
    async def open(cls, broker: Broker, pool: str) -> AsyncIterator["BrokerHand"]:
        agent_id = uuid4()
        own = control_queue(agent_id)
        await broker.declare(own, work_queue(pool))
        async with (
            broker.consume(work_queue(pool).name, prefetch=1) as work,
            broker.consume(own.name, prefetch=10) as control,
        ):
            hand = cls(broker, agent_id, work, control)
            await hand.register(pool)
            yield hand

    async def register(self, pool: str) -> None:
        """Send the first heartbeat, and return when it was heard."""
        beat = make_heartbeat(self._agent_id, agent_type=pool, work_types=[], beat_id=uuid4())
        envelope = StatusUpdateEnvelope(from_agent=str(self._agent_id), to_agent="orchestrator", payload=beat)
        await self._say(HEARTBEATS, envelope)
        while not isinstance(await self._order(), Heard):
            pass

    async def take(self) -> Held | None:
        async with asyncio.timeout(PATIENCE):
            [delivery] = await self._work.receive()
        envelope = decode(delivery.body)
        assert isinstance(envelope, TicketEnvelope)
        ticket: Ticket = envelope.payload
        ask = ClaimedTask(task_id=ticket.task_id, fence=ticket.fence, claim_id=uuid4())
        held = await self._claim(ask, delivery)
        if held is None:
            await self._work.ack(delivery)
        return held

    async def ask_again(self, held: Held) -> Held | None:
        assert isinstance(held.ask, ClaimedTask)
        return await self._claim(held.ask, held.ticket)

    async def finish(self, held: Held, output: str) -> None:
        result = WorkResult(
            task_id=held.task_id,
            status=ResultStatus.COMPLETED,
            output=output,
            duration_ms=1,
            agent_id=self._agent_id,
            attempt=held.attempt,
            fence=held.fence,
            output_bytes={Stream.STDOUT: len(output)},
        )
        await self._say(
            RESULTS, WorkResultEnvelope(from_agent=str(self._agent_id), to_agent="orchestrator", payload=result)
        )
        mine = Lease(task_id=held.task_id, fence=held.fence)
        while not (isinstance(order := await self._order(), Stored) and mine in order.results):
            pass
        if held.ticket is not None:
            await self._work.ack(held.ticket)

    async def _claim(self, ask: ClaimedTask, ticket: Delivery | None) -> Held | None:
        claim = Claim(agent_id=self._agent_id, tasks=[ask])
        await self._say(CLAIMS, ClaimEnvelope(from_agent=str(self._agent_id), to_agent="orchestrator", payload=claim))
        while True:
            match await self._order():
                case Grant(tasks=granted) if (task := _for(ask, granted)) is not None:
                    return Held(ask.task_id, task.attempt, task.fence, ask, ticket)
                case Refusal(tasks=refused) if any(one.claim_id == ask.claim_id for one in refused):
                    return None

    async def _say(self, queue: str, envelope: Envelope) -> None:
        await self._broker.publish(Outgoing(reply_address(self._agent_id, queue), encode(envelope), envelope.type))

    async def _order(self) -> object:
        """Return the next thing that the orchestrator tells this worker."""
        async with asyncio.timeout(PATIENCE):
            [delivery] = await self._control.receive()
        await self._control.ack(delivery)
        envelope: Envelope = decode(delivery.body)
        return envelope.payload.order if isinstance(envelope, ControlEnvelope) else envelope.payload


def _for(ask: ClaimedTask, granted: list[GrantedTask]) -> GrantedTask | None:
    return next((task for task in granted if task.claim_id == ask.claim_id), None)


class HttpHand:
    """Speaks the queue API."""

    def __init__(self, http: Http, work_type: str, *, lease: float, wait: float) -> None:
        self._http = http
        self._name = f"hand-{uuid4()}"
        self._work_type = work_type
        self._lease = lease
        self._wait = wait

    async def register(self, pool: str) -> None:
        """Report itself as a worker of a pool."""
        await self._http.post(f"/api/queue/workers/{self._name}/heartbeat", {"agentType": pool}, repeatable=True)

    async def take(self) -> Held | None:
        return await self._claim(
            {
                "workerId": self._name,
                "claimId": str(uuid4()),
                "leaseSeconds": self._lease,
                "allowedTypes": [self._work_type],
                "waitSeconds": self._wait,
            }
        )

    async def ask_again(self, held: Held) -> Held | None:
        assert isinstance(held.ask, dict)
        return await self._claim(held.ask)

    async def finish(self, held: Held, output: str) -> None:
        body = {"workerId": self._name, "attempt": held.attempt, "resultSummary": output}
        try:
            await self._http.post(f"/api/queue/jobs/{held.task_id}/complete", body, repeatable=True)
        except ApiError as refused:
            if refused.status != 409:
                raise

    async def _claim(self, ask: dict[str, Any]) -> Held | None:
        job = (await self._http.post("/api/queue/jobs/claim", ask, repeatable=True))["job"]
        return None if job is None else Held(UUID(job["id"]), job["attempt"], 0, ask)
