"""No message is lost because the orchestrator could not deal with it just then, and none is tried for ever."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from pydantic import BaseModel

from common.broker import topology
from common.broker.base import BrokerUnavailable, Delivery, Outgoing
from common.broker.memory import MemoryBroker
from common.messages import Probe, WorkResult
from common.protocol import (
    MOST_RESULTS,
    WorkResultEnvelope,
    WorkResults,
    decode,
    encode,
    join_results,
)
from orchestrator.loops.consume import BATCH, ConsumeQueue
from orchestrator.loops.senders import Pools, Trusted
from tests.eventually import eventually
from tests.factories import make_result, make_results, unknown


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
    async with ConsumeQueue(broker, handler, senders=Trusted(Pools(unknown))) as consumer:
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
    async with ConsumeQueue(broker, handler, senders=Trusted(Pools(unknown))) as consumer:
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
    async with ConsumeQueue(broker, handler, senders=Trusted(Pools(unknown))) as consumer:
        await consumer.run_once()

    assert handler.done == ["good"]
    assert await broker.depth(topology.DEAD_LETTERS) == 1


async def test_what_nobody_waits_for_gathers_and_is_dealt_with_together(broker: MemoryBroker) -> None:
    handler = Handler()
    handler.gather = timedelta(seconds=0.5)
    async with ConsumeQueue(broker, handler, senders=Trusted(Pools(unknown))) as consumer:

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


AGENT = UUID(int=1)


def make_singles(*outputs: str) -> list[bytes]:
    return [encode(result) for output in outputs for result in make_results(AGENT, 1, output=output).results]


async def send_together(broker: MemoryBroker, bodies: Sequence[bytes], *, queue: str = topology.RESULTS) -> None:
    address = topology.reply_address(AGENT, queue)
    await broker.publish(Outgoing(address, join_results(AGENT, bodies), "work_results"))


async def letters_of(broker: MemoryBroker) -> Sequence[Delivery]:
    async with broker.consume(topology.DEAD_LETTERS, prefetch=50) as dead:
        return await dead.receive(50)


def outputs_of(letters: Sequence[Delivery]) -> list[str]:
    payloads = [decode(letter.body).payload for letter in letters]
    return [payload.output for payload in payloads if isinstance(payload, WorkResult)]


async def drained(consumer: ConsumeQueue, broker: MemoryBroker) -> None:
    while await broker.depth(topology.RESULTS):
        await consumer.run_once()


async def test_results_that_came_together_are_dealt_with_together_with_others_and_acknowledged_as_one(
    broker: MemoryBroker,
) -> None:
    await send(broker, "one")
    await send_together(broker, make_singles("two", "three"))
    await send(broker, "four")
    handler = Handler()
    async with ConsumeQueue(broker, handler, senders=Trusted(Pools(unknown))) as consumer:
        assert await consumer.run_once() == 3

    assert handler.done == ["one", "two", "three", "four"]
    assert handler.batches == [4]
    assert await broker.depth(topology.RESULTS) == 0


async def test_however_many_results_come_together_only_so_many_are_dealt_with_at_a_time(broker: MemoryBroker) -> None:
    for _ in range(5):
        await send_together(broker, make_singles(*["x"] * MOST_RESULTS))
    handler = Handler()
    async with ConsumeQueue(broker, handler, senders=Trusted(Pools(unknown))) as consumer:
        await consumer.run_once()

    assert sum(handler.batches) == 5 * MOST_RESULTS
    assert max(handler.batches) <= BATCH


@pytest.mark.parametrize("failure", [asyncpg.DataError("bad value"), ValueError("no")])
async def test_of_results_that_came_together_one_that_can_never_be_dealt_with_is_dead_lettered_alone(
    broker: MemoryBroker, failure: Exception
) -> None:
    bodies = make_singles("good", "poison", "fine")
    await send_together(broker, bodies)
    await send(broker, "other")
    handler = Handler(failure, only_for="poison")
    async with ConsumeQueue(broker, handler, senders=Trusted(Pools(unknown))) as consumer:
        await drained(consumer, broker)

    assert sorted(handler.done) == ["fine", "good", "other"]
    [letter] = await letters_of(broker)
    assert letter.body == bodies[1]
    assert letter.headers["queue"] == topology.RESULTS
    assert type(failure).__name__ in letter.headers["reason"]


async def test_of_results_that_came_together_one_that_cannot_be_read_is_dead_lettered_alone(
    broker: MemoryBroker,
) -> None:
    good, broken, fine = make_singles("good", "broken", "fine")
    await send_together(broker, [good, broken.replace(b'"attempt":1', b'"attempt":-1'), fine])
    handler = Handler()
    async with ConsumeQueue(broker, handler, senders=Trusted(Pools(unknown))) as consumer:
        await drained(consumer, broker)

    assert sorted(handler.done) == ["fine", "good"]
    [letter] = await letters_of(broker)
    assert "attempt" in letter.headers["reason"]
    assert b'"output": "broken"' in letter.body


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"type":"work_result"', b'"type":"renew"'),
        (f'"from_agent":"{AGENT}"'.encode(), b'"from_agent":"somebody"'),
        (f'"agent_id":"{AGENT}"'.encode(), f'"agent_id":"{UUID(int=2)}"'.encode()),
    ],
)
async def test_what_is_no_result_of_the_agent_is_not_taken_out_of_what_it_sent(
    broker: MemoryBroker, old: bytes, new: bytes
) -> None:
    good, other = make_singles("good", "other")
    broken = other.replace(old, new).replace(b'"attempt":1', b'"attempt":-1')
    assert old in other
    await send_together(broker, [good, broken])
    handler = Handler()
    async with ConsumeQueue(broker, handler, senders=Trusted(Pools(unknown))) as consumer:
        await drained(consumer, broker)

    assert handler.done == []
    [letter] = await letters_of(broker)
    assert broken in letter.body


class ByOneOnly(Trusted):
    """Believes what is said in the name of the agent only."""

    async def objection(self, delivery: Delivery, envelope: object, payload: BaseModel) -> str | None:
        assert isinstance(payload, WorkResults | WorkResult)
        return None if payload.agent_id == AGENT else "forged: it is not the agent's"


async def test_results_that_came_together_are_taken_apart_only_when_their_sender_may_say_them(
    broker: MemoryBroker,
) -> None:
    stranger = uuid4()
    [good, broken] = [encode(result) for result in make_results(stranger).results]
    body = join_results(stranger, [good, broken.replace(b'"attempt":1', b'"attempt":-1')])
    await broker.publish(Outgoing(topology.reply_address(stranger, topology.RESULTS), body, "work_results"))
    handler = Handler()
    async with ConsumeQueue(broker, handler, senders=ByOneOnly(Pools(unknown))) as consumer:
        await drained(consumer, broker)

    assert handler.done == []
    [letter] = await letters_of(broker)
    assert letter.body == body
    assert letter.headers["reason"].startswith("forged")


async def test_what_a_stranger_says_is_dead_lettered_and_not_handled(broker: MemoryBroker) -> None:
    stranger = uuid4()
    [result] = make_results(stranger, 1).results
    await broker.publish(Outgoing(topology.reply_address(stranger, topology.RESULTS), encode(result), "work_result"))
    handler = Handler()
    async with ConsumeQueue(broker, handler, senders=ByOneOnly(Pools(unknown))) as consumer:
        await drained(consumer, broker)

    assert handler.done == []
    [letter] = await letters_of(broker)
    assert letter.headers["reason"].startswith("forged")


async def test_results_that_came_together_stay_in_the_queue_while_they_cannot_be_dealt_with(
    broker: MemoryBroker,
) -> None:
    await send_together(broker, make_singles("one", "two"))
    handler = Handler(asyncpg.TooManyConnectionsError("too many clients"))
    async with ConsumeQueue(broker, handler, senders=Trusted(Pools(unknown))) as consumer:
        with pytest.raises(asyncpg.TooManyConnectionsError):
            await consumer.run_once()
        assert await broker.depth(topology.RESULTS) == 1
        handler.failure = None
        await consumer.run_once()

    assert handler.done == ["one", "two"]


async def test_results_are_not_lost_when_the_broker_is_away_while_they_are_taken_apart(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send_together(broker, make_singles("good", "poison"))
    handler = Handler(ValueError("no"), only_for="poison")
    async with ConsumeQueue(broker, handler, senders=Trusted(Pools(unknown))) as consumer:
        with monkeypatch.context() as patched:

            async def away(*messages: Outgoing) -> None:
                raise BrokerUnavailable("away")

            patched.setattr(broker, "publish", away)
            with pytest.raises(BrokerUnavailable):
                await consumer.run_once()
        await drained(consumer, broker)

    assert handler.done == ["good"]
    assert outputs_of(await letters_of(broker)) == ["poison"]


async def test_what_the_queue_does_not_take_is_not_taken_from_a_message_of_results_either(broker: MemoryBroker) -> None:
    await send_together(broker, make_singles("one", "two"))
    handler = Handler()
    handler.accepts = (Probe,)
    async with ConsumeQueue(broker, handler, senders=Trusted(Pools(unknown))) as consumer:
        await consumer.run_once()

    [letter] = await letters_of(broker)
    assert "work_results does not belong" in letter.headers["reason"]
