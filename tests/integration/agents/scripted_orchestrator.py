"""An orchestrator that does what the test says: it speaks the messages and records what the agents say."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID, uuid4

from common.broker.base import Broker, BrokerUnavailable, Outgoing
from common.broker.topology import (
    CLAIMS,
    DEAD_LETTER_QUEUE,
    HEARTBEATS,
    PROGRESS,
    REPLY_QUEUES,
    RESULTS,
    control_address,
    work_address,
    work_queue,
)
from common.messages import (
    AgentStatus,
    CancelTask,
    Claim,
    ClaimedTask,
    Grant,
    GrantedTask,
    Lease,
    OutputChunk,
    ProtocolError,
    Refusal,
    RefusedTask,
    Renew,
    Renewed,
    StatusUpdate,
    Stored,
    Stream,
    Ticket,
    WorkRequest,
    WorkResult,
    WorkStatus,
)
from common.orders import Control, Drain, Heard, Pause, Resume
from common.protocol import (
    ORCHESTRATOR,
    ControlEnvelope,
    Envelope,
    GrantEnvelope,
    RefusalEnvelope,
    TicketEnvelope,
    WorkResultsEnvelope,
    decode,
    encode,
)
from common.signing.claims import SignedTask, sign_grant
from common.signing.keys import PrivateKey
from common.unreadable import Unreadable
from tests.eventually import eventually

OFFLINE = AgentStatus.OFFLINE

Order = CancelTask | Renewed | Stored | Heard | Pause | Drain | Resume


@dataclass
class Dispatched:
    """A task as this orchestrator knows it."""

    work: WorkRequest
    trace_id: UUID = field(default_factory=uuid4)
    request_id: UUID = field(default_factory=uuid4)


class ScriptedOrchestrator:
    """Grants every claim once, renews every lease, stores every result and hears every beat, unless told otherwise.

    With a `key` it signs. `answer_with` is what somebody on the way makes of its grants.
    """

    def __init__(self, broker: Broker, *, lease_seconds: float = 60.0) -> None:
        self.lease_seconds = lease_seconds
        self.is_silent = False
        self.refuses: set[UUID] = set()
        self.loses: set[UUID] = set()
        self.renews = True
        self.stores = True
        self.hears = True
        self.key: PrivateKey | None = None
        self.answer_with: Callable[[Grant], Grant] = lambda grant: grant
        self.claims: list[ClaimedTask] = []
        self.claim_messages: list[Claim] = []
        self.grants: dict[UUID, GrantedTask] = {}
        self.statuses: list[WorkStatus] = []
        self.results: dict[UUID, list[WorkResult]] = defaultdict(list)
        self.errors: list[ProtocolError] = []
        self.unreadable: list[Unreadable] = []
        self.heartbeats: list[StatusUpdate] = []
        self.renewals: list[Renew] = []
        self.lease_ends: dict[UUID, float] = {}
        self._broker = broker
        self._tasks: dict[UUID, Dispatched] = {}
        self._fences = count(1)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["ScriptedOrchestrator"]:
        await self._broker.declare(DEAD_LETTER_QUEUE, *REPLY_QUEUES, work_queue("infra"))
        readers = [asyncio.create_task(self._read(queue)) for queue in (CLAIMS, RESULTS, PROGRESS, HEARTBEATS)]
        try:
            yield self
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def dispatch(self, work_type: str, **parameters: object) -> UUID:
        """Publish the ticket of a new task."""
        work = WorkRequest.model_validate({"task_id": uuid4(), "work_type": work_type, "parameters": parameters})
        self._tasks[work.task_id] = Dispatched(work)
        await self.publish_ticket(work.task_id)
        return work.task_id

    async def shell(self, script: str, **parameters: object) -> UUID:
        return await self.dispatch("shell_script", script=script, **parameters)

    async def publish_ticket(self, task_id: UUID) -> None:
        task = self._tasks[task_id]
        ticket = Ticket(task_id=task_id, work_type=task.work.work_type, fence=0)
        envelope = TicketEnvelope(
            from_agent=ORCHESTRATOR,
            to_agent="infra",
            trace_id=task.trace_id,
            request_id=task.request_id,
            payload=ticket,
        )
        await self.publish_work(encode(envelope))

    async def publish_work(self, body: bytes) -> None:
        await self._broker.publish(Outgoing(work_address("infra"), body, "work_request"))

    def drain(self, note: str = "") -> Drain:
        """Return an order to leave, for the agent whose heartbeat came last."""
        return Drain(started_at=self.heartbeats[-1].started_at, note=note)

    async def tell(self, envelope: Envelope) -> None:
        await self.tell_raw(encode(envelope))

    async def tell_raw(self, body: bytes) -> None:
        await self._broker.publish(Outgoing(control_address(self.agent_id), body, "control"))

    async def send_grant(self, grant: GrantedTask) -> None:
        signed = Grant(tasks=[grant], signature=None if self.key is None else self.signature(grant))
        await self.tell(GrantEnvelope(from_agent=ORCHESTRATOR, to_agent="agent", payload=self.answer_with(signed)))

    def signature(self, grant: GrantedTask) -> str:
        assert self.key is not None
        tasks, valid = [SignedTask.of(grant)], timedelta(seconds=self.lease_seconds)
        return sign_grant(self.key, self.agent_id, tasks, now=datetime.now(UTC), valid=valid)

    async def cancel(self, task_id: UUID) -> None:
        await self.order(CancelTask(task_id=task_id, fence=self.grants[task_id].fence))

    async def lose(self, task_id: UUID) -> None:
        """Tell the agent that a lease is lost, as the answer to a renewal does."""
        lost = [Lease(task_id=task_id, fence=self.grants[task_id].fence)]
        await self.order(Renewed(renewal_id=uuid4(), lease_seconds=self.lease_seconds, kept=[], lost=lost))

    async def order(self, order: Order) -> None:
        await self.tell(ControlEnvelope(from_agent=ORCHESTRATOR, to_agent="agent", payload=Control(order=order)))

    def grant_of(self, claimed: ClaimedTask) -> GrantedTask:
        task = self._tasks[claimed.task_id]
        return GrantedTask(
            claim_id=claimed.claim_id,
            work=task.work,
            trace_id=task.trace_id,
            request_id=task.request_id,
            attempt=1,
            fence=next(self._fences),
            lease_seconds=self.lease_seconds,
        )

    @property
    def agent_id(self) -> UUID:
        return self.heartbeats[0].agent_id

    def result(self, task_id: UUID) -> WorkResult | None:
        """Return the only result of a task, None while there is none."""
        results = self.results[task_id]
        assert len(results) <= 1, results
        return results[0] if results else None

    async def ended(self, task_id: UUID, *, timeout: float = 10.0) -> WorkResult:
        """Wait for the only result of a task."""
        result = await eventually(lambda: self.result(task_id), timeout=timeout)
        assert result is not None
        return result

    def chunks(self, task_id: UUID) -> list[OutputChunk]:
        """Return the chunks of a task by number; one that an agent sent again counts once."""
        streamed = [chunk for status in self.statuses if status.task_id == task_id for chunk in status.chunks]
        sent = streamed + [chunk for result in self.results[task_id] for chunk in result.chunks]
        by_number = {chunk.number: chunk for chunk in sent}
        assert all(by_number[chunk.number] == chunk for chunk in sent), "a number stands for two texts"
        return [by_number[number] for number in sorted(by_number)]

    def output(self, task_id: UUID, stream: Stream = Stream.STDOUT) -> str:
        return "".join(chunk.text for chunk in self.chunks(task_id) if chunk.stream is stream)

    async def _read(self, queue: str) -> None:
        handlers: dict[str, Callable[[Envelope], object]] = {"status_update": self._note_heartbeat}
        async with self._broker.consume(queue, prefetch=10) as consumer:
            while True:
                deliveries = await consumer.receive(10)
                for delivery in deliveries:
                    for envelope in _each(decode(delivery.body)):
                        handlers.get(envelope.type, self._note)(envelope)
                        with suppress(BrokerUnavailable):  # the agent asks again
                            await self._answer(envelope)
                await consumer.ack(*deliveries)

    def _note_heartbeat(self, envelope: Envelope) -> None:
        assert isinstance(envelope.payload, StatusUpdate)
        self.heartbeats.append(envelope.payload)

    def _note(self, envelope: Envelope) -> None:
        match envelope.payload:
            case Claim() as claim:
                self.claim_messages.append(claim)
                self.claims.extend(claim.tasks)
            case WorkStatus() as status:
                self.statuses.append(status)
            case WorkResult() as result:
                self.results[result.task_id].append(result)
            case ProtocolError() as error:
                self.errors.append(error)
            case Unreadable() as unreadable:
                self.unreadable.append(unreadable)
            case Renew() as renewal:
                self.renewals.append(renewal)

    async def _answer(self, envelope: Envelope) -> None:
        match envelope.payload:
            case Claim() as claim if not self.is_silent:
                for claimed in claim.tasks:
                    await self._answer_claim(claimed)
            case Renew() as renewal if self.renews:
                await self._answer_renewal(renewal)
            case WorkResult() as result if self.stores:
                await self.order(Stored(results=[Lease(task_id=result.task_id, fence=result.fence)]))
            case StatusUpdate(status=status, beat_id=UUID() as beat_id) if self.hears and status is not OFFLINE:
                await self.order(Heard(beat_id=beat_id))

    async def _answer_claim(self, claimed: ClaimedTask) -> None:
        if claimed.task_id in self.refuses:
            refused = RefusedTask(claim_id=claimed.claim_id, task_id=claimed.task_id, reason="somebody was first")
            await self.tell(
                RefusalEnvelope(from_agent=ORCHESTRATOR, to_agent="agent", payload=Refusal(tasks=[refused]))
            )
            return
        grant = self.grants.get(claimed.task_id)
        if grant is None or grant.claim_id != claimed.claim_id:
            grant = self.grants[claimed.task_id] = self.grant_of(claimed)
            self.lease_ends[claimed.task_id] = time.time() + self.lease_seconds
        await self.send_grant(grant)

    async def _answer_renewal(self, renewal: Renew) -> None:
        lost: list[Lease] = [lease for lease in renewal.leases if lease.task_id in self.loses]
        kept = [lease for lease in renewal.leases if lease.task_id not in self.loses]
        # As the database does: from when the answer is written, whether or not it arrives.
        self.lease_ends.update({lease.task_id: time.time() + self.lease_seconds for lease in kept})
        await self.order(Renewed(renewal_id=renewal.renewal_id, lease_seconds=self.lease_seconds, kept=kept, lost=lost))


def _each(envelope: Envelope) -> Sequence[Envelope]:
    """Return what travelled in a message."""
    return envelope.payload.results if isinstance(envelope, WorkResultsEnvelope) else [envelope]
