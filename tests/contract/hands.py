"""Workers that do just what a test tells them: one that speaks through a broker, one that speaks HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID, uuid4

from pydantic.alias_generators import to_camel

from chiffon.errors import ApiError
from chiffon.http import Http
from common.broker.base import Broker, Consumer, Outgoing
from common.broker.topology import HEARTBEATS, PROGRESS, RESULTS, control_queue, reply_address, work_queue
from common.messages import (
    AgentStatus,
    ArtifactPiece,
    Credit,
    Grant,
    Lease,
    ResultStatus,
    StepReport,
    Stored,
    Stream,
    WorkResult,
)
from common.orders import ArtifactsStored, FilePiece, Heard, Order, StepsStored
from common.protocol import (
    ControlEnvelope,
    Envelope,
    StatusUpdateEnvelope,
    WantFileEnvelope,
    WorkRequestEnvelope,
    WorkResultEnvelope,
    WorkStatusEnvelope,
    decode,
    encode,
)
from tests.factories import make_heartbeat, make_status, make_want

PATIENCE = 20.0
# How long a worker waits to hear that a file is stored before it sends it again.
RESEND = 1.0
# A worker over HTTP is told nothing and asks again; a lease lasts some seconds.
ASK_AGAIN = 0.1


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

    async def report_steps(self, held: Held, *steps: StepReport) -> str | None:
        """Report inner steps, and return when that is dealt with: the last of them, when their end may be forgotten."""
        ...

    async def keep(self, held: Held, *pieces: ArtifactPiece) -> str:
        """Send pieces of one file until it is settled; return why it is refused, empty when it is stored."""
        ...

    async def fetch(self, held: Held, path: str, *, offset: int = 0) -> FilePiece:
        """Return a piece of a file that the work brings with it."""
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

    async def report_steps(self, held: Held, *steps: StepReport) -> str | None:
        said = make_status(held.task_id, self.agent_id, attempt=held.attempt, steps=list(steps))
        await self._say(PROGRESS, WorkStatusEnvelope(**self._from(), payload=said))
        through: str | None = None
        # What is said behind it is answered behind it.
        want_id = await self._want(held, "nothing")
        while not (isinstance(order := await self._order(), FilePiece) and order.want_id == want_id):
            if isinstance(order, StepsStored):
                assert (order.task_id, order.attempt) == (held.task_id, held.attempt)
                through = order.through
        return through

    async def keep(self, held: Held, *pieces: ArtifactPiece) -> str:
        [name] = {piece.name for piece in pieces}
        for _ in range(int(PATIENCE / RESEND)):
            for piece in pieces:
                said = make_status(held.task_id, self.agent_id, attempt=held.attempt, pieces=[piece])
                await self._say(PROGRESS, WorkStatusEnvelope(**self._from(), payload=said))
            with suppress(TimeoutError):
                while not isinstance(order := await self._order(within=RESEND), ArtifactsStored):
                    pass
                assert (order.task_id, order.attempt) == (held.task_id, held.attempt)
                assert {*order.names, *order.refused} == {name}
                return order.refused.get(name, "")
        raise TimeoutError(f"nobody says what became of {name}")

    async def fetch(self, held: Held, path: str, *, offset: int = 0) -> FilePiece:
        want_id = await self._want(held, path, offset=offset)
        while not (isinstance(order := await self._order(), FilePiece) and order.want_id == want_id):
            pass
        return order

    async def _want(self, held: Held, path: str, *, offset: int = 0) -> UUID:
        want = make_want(self.agent_id, task_id=held.task_id, attempt=held.attempt, path=path, offset=offset)
        await self._say(PROGRESS, WantFileEnvelope(**self._from(), payload=want))
        return want.want_id

    def _from(self) -> dict[str, str]:
        return {"from_agent": str(self.agent_id), "to_agent": "orchestrator"}

    async def _say(self, queue: str, envelope: Envelope) -> None:
        await self._broker.publish(Outgoing(reply_address(self.agent_id, queue), encode(envelope), envelope.type))

    async def _order(self, *, within: float = PATIENCE) -> Order:
        """Return the next thing that the orchestrator tells this worker."""
        async with asyncio.timeout(within):
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

    async def report_steps(self, held: Held, *steps: StepReport) -> str | None:
        said = [{to_camel(name): value for name, value in step.model_dump(mode="json").items()} for step in steps]
        answer = await self._say(held, "steps", steps=said)
        through: str | None = answer.get("through")
        return through

    async def keep(self, held: Held, *pieces: ArtifactPiece) -> str:
        for _ in range(int(PATIENCE / ASK_AGAIN)):
            for piece in pieces:
                answer = await self._say(held, "artifacts", **piece.model_dump(mode="json"))
                if answer.get("stored") or answer.get("refused"):
                    return answer.get("refused") or ""
            await asyncio.sleep(ASK_AGAIN)
        raise TimeoutError(f"nobody says what became of {pieces[0].name}")

    async def fetch(self, held: Held, path: str, *, offset: int = 0) -> FilePiece:
        while (answer := await self._say(held, "files", path=path, offset=offset)).pop("pending", False):
            await asyncio.sleep(ASK_AGAIN)
        if problem := answer.get("refused"):
            return FilePiece(want_id=uuid4(), problem=problem)
        return FilePiece(want_id=uuid4(), **answer)

    async def _say(self, held: Held, what: str, **body: Any) -> dict[str, Any]:
        """Return the answer; `refused` is why the job is not this worker's."""
        said = {"workerId": self._name, "attempt": held.attempt, **body}
        try:
            answer: dict[str, Any] = await self._http.post(
                f"/api/queue/jobs/{held.task_id}/{what}", said, repeatable=True
            )
        except ApiError as refused:
            if refused.status != 409:
                raise
            return {"refused": str(refused)}
        return answer

    async def _claim(self, ask: dict[str, Any]) -> Held:
        job = (await self._http.post("/api/queue/jobs/claim", ask, repeatable=True))["job"]
        assert job is not None
        return Held(UUID(job["id"]), job["attempt"], ask)
