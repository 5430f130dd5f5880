"""An orchestrator that does what the test says: it speaks the messages and records what the agents say."""

import asyncio
import base64
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from common.artifacts import MAX_PIECE_BYTES
from common.broker.base import Broker, BrokerUnavailable, Outgoing
from common.broker.topology import (
    HEARTBEATS,
    PROGRESS,
    RESULTS,
    SHARED_QUEUES,
    control_address,
    work_address,
)
from common.messages import (
    AgentStatus,
    CancelTask,
    Credit,
    Grant,
    GrantedTask,
    Lease,
    OutputChunk,
    Renew,
    Renewed,
    StatusUpdate,
    Stored,
    Stream,
    WantFile,
    WorkRequest,
    WorkResult,
    WorkStatus,
)
from common.orders import ArtifactsStored, Control, Drain, FilePiece, Heard, Order
from common.protocol import (
    ORCHESTRATOR,
    ControlEnvelope,
    Envelope,
    WorkRequestEnvelope,
    WorkResults,
    WorkResultsEnvelope,
    decode,
    encode,
)
from common.signing.claims import SignedTask, sign_grant
from common.signing.keys import PrivateKey
from common.unreadable import Unreadable
from tests.eventually import eventually

OFFLINE = AgentStatus.OFFLINE
LEAVING = (AgentStatus.DRAINING, OFFLINE)


@dataclass
class Dispatched:
    """A task as this orchestrator knows it."""

    work: WorkRequest
    trace_id: UUID = field(default_factory=uuid4)
    request_id: UUID = field(default_factory=uuid4)


@dataclass
class Account:
    """What one session of an agent asked for, and what it was granted."""

    session: UUID
    number: int = 0
    limit: int = 0
    granted: int = 0

    def take_in(self, credit: Credit) -> None:
        self.number = max(self.number, credit.number)
        self.limit = max(self.limit, credit.limit)


class ScriptedOrchestrator:
    """Grants tasks while an agent asks for some, renews every lease, stores every result and file, hears every beat.

    Unless told otherwise: while `is_silent` it grants nothing. With a `key` it signs. `answer_with` is what somebody on
    the way makes of its grants. `files` is what it has for work, by the paths that work gives them.
    """

    def __init__(self, broker: Broker, *, lease_seconds: float = 60.0) -> None:
        self.lease_seconds = lease_seconds
        self.is_silent = False
        self.loses: set[UUID] = set()
        self.renews = True
        self.stores = True
        self.files: dict[str, bytes] = {}
        self.wants: list[WantFile] = []
        self.hears = True
        self.key: PrivateKey | None = None
        self.answer_with: Callable[[Grant], Grant] = lambda grant: grant
        self.waiting: list[UUID] = []
        self.accounts: dict[UUID, Account] = {}
        self.credits: list[Credit] = []
        self.grants: dict[UUID, GrantedTask] = {}
        self.statuses: list[WorkStatus] = []
        self.results: dict[UUID, list[WorkResult]] = defaultdict(list)
        self.unreadable: list[Unreadable] = []
        self.heartbeats: list[StatusUpdate] = []
        self.renewals: list[Renew] = []
        self.lease_ends: dict[UUID, float] = {}
        self._broker = broker
        self._tasks: dict[UUID, Dispatched] = {}
        self._attempts = Counter[UUID]()
        self._giving = asyncio.Lock()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["ScriptedOrchestrator"]:
        await self._broker.declare(*SHARED_QUEUES)
        readers = [asyncio.create_task(self._read(queue)) for queue in (RESULTS, PROGRESS, HEARTBEATS)]
        try:
            yield self
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def dispatch(self, work_type: str, **parameters: object) -> UUID:
        """Have a new task wait, and grant it when an agent asks for work."""
        work = WorkRequest.model_validate({"task_id": uuid4(), "work_type": work_type, "parameters": parameters})
        self._tasks[work.task_id] = Dispatched(work)
        self.waiting.append(work.task_id)
        await self.give()
        return work.task_id

    async def shell(self, script: str, **parameters: object) -> UUID:
        return await self.dispatch("shell_script", script=script, **parameters)

    async def give(self) -> None:
        """Grant what waits, as far as the agent asks for it."""
        async with self._giving:
            while self.waiting and not self.is_silent and self.asks_for_work:
                task_id = self.waiting.pop(0)
                self.grants[task_id] = self.grant_of(task_id)
                self.account.granted += 1
                self.lease_ends[task_id] = time.time() + self.lease_seconds
                await self.send_grant(self.grants[task_id])

    async def publish_work(self, body: bytes) -> None:
        await self._broker.publish(Outgoing(work_address("infra", self.agent_id), body, "work_request"))

    @property
    def work_queue(self) -> str:
        return f"work.infra.{self.agent_id}"

    @property
    def account(self) -> Account:
        """The account of the process that was heard last."""
        boot_id = self.heartbeats[-1].boot_id
        assert boot_id is not None
        return self.accounts[boot_id]

    @property
    def asks_for_work(self) -> bool:
        """Whether the agent asks for more than it was granted, and stays."""
        if not self.heartbeats or self.heartbeats[-1].status in LEAVING:
            return False
        return self.account.granted < self.account.limit

    def drain(self, note: str = "") -> Drain:
        """Return an order to leave, for the agent whose heartbeat came last."""
        return Drain(started_at=self.heartbeats[-1].started_at, note=note)

    async def tell(self, envelope: Envelope) -> None:
        await self.tell_raw(encode(envelope))

    async def tell_raw(self, body: bytes) -> None:
        await self._broker.publish(Outgoing(control_address(self.agent_id), body, "control"))

    async def send_grant(self, *grants: GrantedTask, credit: int | None = None) -> None:
        """Send grants in one message; `credit` is the number of the message that asked for them, if not the last."""
        message = Grant(tasks=list(grants), credit=self.account.number if credit is None else credit)
        if self.key is not None:
            message = message.model_copy(update={"signature": self.signature(*grants, credit=message.credit)})
        await self.publish_work(work_message(self.answer_with(message)))

    def signature(self, *grants: GrantedTask, credit: int | None) -> str:
        assert self.key is not None
        tasks, valid = [SignedTask.of(grant) for grant in grants], timedelta(seconds=self.lease_seconds)
        return sign_grant(self.key, self.agent_id, tasks, now=datetime.now(UTC), valid=valid, credit=credit)

    async def cancel(self, task_id: UUID) -> None:
        await self.order(CancelTask(task_id=task_id, attempt=self.grants[task_id].attempt))

    async def lose(self, task_id: UUID) -> None:
        """Tell the agent that a lease is lost, as the answer to a renewal does."""
        lost = [Lease(task_id=task_id, attempt=self.grants[task_id].attempt)]
        await self.order(Renewed(renewal_id=uuid4(), lease_seconds=self.lease_seconds, kept=[], lost=lost))

    async def order(self, order: Order) -> None:
        await self.tell(ControlEnvelope(from_agent=ORCHESTRATOR, to_agent="agent", payload=Control(order=order)))

    def grant_of(self, task_id: UUID) -> GrantedTask:
        """Return a lease of a task, to the process that was heard last."""
        task = self._tasks[task_id]
        self._attempts[task_id] += 1
        return GrantedTask(
            claim_id=self.account.session,
            work=task.work,
            trace_id=task.trace_id,
            request_id=task.request_id,
            attempt=self._attempts[task_id],
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

    def kept(self, task_id: UUID) -> dict[str, bytes]:
        """Return the files that a task has kept, as far as they are here whole; a piece may have come again."""
        pieces = [piece for status in self.statuses if status.task_id == task_id for piece in status.pieces]
        content: dict[str, dict[int, bytes]] = defaultdict(dict)
        for piece in pieces:
            assert content[piece.name].setdefault(piece.offset, piece.raw) == piece.raw
        whole = {name: b"".join(found[offset] for offset in sorted(found)) for name, found in content.items()}
        digests = {piece.name: piece.sha256 for piece in pieces}
        return {name: data for name, data in whole.items() if hashlib.sha256(data).hexdigest() == digests[name]}

    async def _read(self, queue: str) -> None:
        async with self._broker.consume(queue, prefetch=10) as consumer:
            while True:
                deliveries = await consumer.receive(10)
                for message in (decode(delivery.body) for delivery in deliveries):
                    if isinstance(message.payload, StatusUpdate | WorkResults) and message.payload.credit is not None:
                        self._take_in(message.payload.credit)
                    for envelope in _each(message):
                        self._note(envelope)
                        with suppress(BrokerUnavailable):  # the agent asks again
                            await self._answer(envelope)
                    with suppress(BrokerUnavailable):
                        await self.give()
                await consumer.ack(*deliveries)

    def _take_in(self, credit: Credit) -> None:
        self.credits.append(credit)
        self.accounts.setdefault(credit.session, Account(credit.session)).take_in(credit)

    def _note(self, envelope: Envelope) -> None:
        match envelope.payload:
            case StatusUpdate() as update:
                self.heartbeats.append(update)
            case WorkStatus() as status:
                self.statuses.append(status)
            case WorkResult() as result:
                self.results[result.task_id].append(result)
            case WantFile() as want:
                self.wants.append(want)
            case Unreadable() as unreadable:
                self.unreadable.append(unreadable)
            case Renew() as renewal:
                self.renewals.append(renewal)

    async def _answer(self, envelope: Envelope) -> None:
        match envelope.payload:
            case Renew() as renewal if self.renews:
                await self._answer_renewal(renewal)
            case WorkResult() as result if self.stores:
                await self.order(Stored(results=[Lease(task_id=result.task_id, attempt=result.attempt)]))
            case WorkStatus(pieces=[*_, piece]) as status if self.stores and piece.name in self.kept(status.task_id):
                stored = ArtifactsStored(task_id=status.task_id, attempt=status.attempt, names=[piece.name])
                await self.order(stored)
            case WantFile() as want:
                await self.order(self._piece_of(want))
            case StatusUpdate(status=status, beat_id=UUID() as beat_id) if self.hears and status is not OFFLINE:
                await self.order(Heard(beat_id=beat_id, granted=self.account.granted))

    def _piece_of(self, want: WantFile) -> FilePiece:
        content = self.files.get(want.path)
        if content is None:
            return FilePiece(want_id=want.want_id, problem=f"There is no file {want.path}.")
        return FilePiece(
            want_id=want.want_id,
            offset=want.offset,
            data=base64.b64encode(content[want.offset : want.offset + MAX_PIECE_BYTES]).decode(),
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )

    async def _answer_renewal(self, renewal: Renew) -> None:
        lost: list[Lease] = [lease for lease in renewal.leases if lease.task_id in self.loses]
        kept = [lease for lease in renewal.leases if lease.task_id not in self.loses]
        # As the database does: from when the answer is written, whether or not it arrives.
        self.lease_ends.update({lease.task_id: time.time() + self.lease_seconds for lease in kept})
        await self.order(Renewed(renewal_id=renewal.renewal_id, lease_seconds=self.lease_seconds, kept=kept, lost=lost))


def work_message(grant: Grant) -> bytes:
    """Return the message that brings grants."""
    return encode(WorkRequestEnvelope(from_agent=ORCHESTRATOR, to_agent="agent", payload=grant))


def _each(envelope: Envelope) -> Sequence[Envelope]:
    """Return what travelled in a message."""
    return envelope.payload.results if isinstance(envelope, WorkResultsEnvelope) else [envelope]
