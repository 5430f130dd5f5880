"""No message is lost because the orchestrator could not deal with it just then, and none is tried for ever."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
from pydantic import BaseModel

from common.broker import topology
from common.broker.base import BrokerUnavailable, Outgoing
from common.broker.memory import MemoryBroker
from common.messages import WorkResult
from common.protocol import WorkResultEnvelope, encode
from orchestrator.loops.consume import ConsumeQueue
from orchestrator.loops.senders import Trusted
from tests.eventually import eventually
from tests.factories import make_result


class Handler:
    """Fails as it is told, and notes what it dealt with."""

    queue = topology.RESULTS
    prefetch = 10
    gather = timedelta(0)
    accepts: tuple[type[BaseModel], ...] = (WorkResult,)

    def __init__(self, failure: Exception | None = None, *, only_for: str = "") -> None:
        self.failure = failure
        self.only_for = only_for
        self.done: list[str] = []
        self.batches: list[int] = []

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        outputs = [payload.output for payload in payloads if isinstance(payload, WorkResult)]
        if self.failure is not None and any(self.only_for in output for output in outputs):
            raise self.failure
        self.done += outputs
        self.batches.append(len(outputs))


@pytest.fixture
async def broker() -> MemoryBroker:
    broker = MemoryBroker()
    await broker.declare(topology.DEAD_LETTER_QUEUE, *topology.REPLY_QUEUES)
    return broker


async def send(broker: MemoryBroker, *outputs: str) -> None:
    for output in outputs:
        envelope = WorkResultEnvelope(
            from_agent="a", to_agent="orchestrator", payload=make_result(uuid4(), uuid4(), output=output)
        )
        address = topology.reply_address(uuid4(), topology.RESULTS)
        await broker.publish(Outgoing(address, encode(envelope), envelope.type))


@pytest.mark.parametrize(
    "failure",
    [
        asyncpg.TooManyConnectionsError("too many clients"),
        asyncpg.DiskFullError("disk full"),
        asyncpg.ReadOnlySQLTransactionError("read-only"),
        asyncpg.QueryCanceledError("statement timeout"),
        asyncpg.DeadlockDetectedError("deadlock"),
        asyncpg.InterfaceError("connection is closed"),
        ConnectionResetError("gone"),
        TimeoutError(),
        BrokerUnavailable("gone"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_what_cannot_be_dealt_with_just_now_stays_in_the_queue(broker: MemoryBroker, failure: Exception) -> None:
    await send(broker, "one", "two")
    handler = Handler(failure)
    async with ConsumeQueue(broker, handler, senders=Trusted()) as consumer:
        with pytest.raises(type(failure)):
            await consumer.run_once()
        assert await broker.depth(topology.RESULTS) == 2
        assert await broker.depth(topology.DEAD_LETTERS) == 0

        handler.failure = None
        await consumer.run_once()

    assert handler.done == ["one", "two"]
    assert await broker.depth(topology.RESULTS) == 0


@pytest.mark.parametrize(
    "failure",
    [asyncpg.DataError("bad value"), asyncpg.ForeignKeyViolationError("no such row"), ValueError("no"), KeyError("no")],
    ids=lambda failure: type(failure).__name__,
)
async def test_a_message_that_can_never_be_dealt_with_is_dead_lettered_alone(
    broker: MemoryBroker, failure: Exception
) -> None:
    await send(broker, "good", "poison", "fine")
    handler = Handler(failure, only_for="poison")
    async with ConsumeQueue(broker, handler, senders=Trusted()) as consumer:
        await consumer.run_once()

    assert handler.done == ["good", "fine"]
    async with broker.consume(topology.DEAD_LETTERS, prefetch=5) as dead:
        [letter] = await dead.receive(5)
    assert letter.headers["queue"] == topology.RESULTS
    assert type(failure).__name__ in letter.headers["reason"]


async def test_unreadable_messages_are_dead_lettered_and_the_rest_is_handled(broker: MemoryBroker) -> None:
    address = topology.reply_address(uuid4(), topology.RESULTS)
    await broker.publish(Outgoing(address, b"{", "work_result"))
    await send(broker, "good")
    handler = Handler()
    async with ConsumeQueue(broker, handler, senders=Trusted()) as consumer:
        await consumer.run_once()

    assert handler.done == ["good"]
    assert await broker.depth(topology.DEAD_LETTERS) == 1


async def test_what_nobody_waits_for_gathers_and_is_dealt_with_together(broker: MemoryBroker) -> None:
    handler = Handler()
    handler.gather = timedelta(seconds=0.5)
    async with ConsumeQueue(broker, handler, senders=Trusted()) as consumer:

        async def consume() -> None:
            while True:
                await consumer.run_once()

        consuming = asyncio.create_task(consume())
        await send(broker, "at once")
        await eventually(lambda: handler.done == ["at once"])
        for output in ("one", "two", "three"):
            await send(broker, output)
            # Time enough for whoever would take it at once.
            for _ in range(20):
                await asyncio.sleep(0)

        await eventually(lambda: len(handler.done) == 4)
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)

    assert handler.batches == [1, 3]
