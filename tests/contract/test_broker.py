"""The broker contract, on every backend: each test is a sentence of `common.broker.base`."""

import asyncio
from datetime import timedelta

import pytest

from common.broker.base import (
    Address,
    Broker,
    BrokerUnavailable,
    Consumer,
    ConsumerCancelled,
    Delivery,
    ExchangeType,
    Outgoing,
    Queue,
    Unroutable,
)
from common.broker.topology import DEAD_LETTER_QUEUE
from tests.contract.buses import Bus
from tests.contract.conftest import make_exchange, make_queue
from tests.eventually import eventually


def make_message(queue: Queue, body: bytes = b"body", **fields: object) -> Outgoing:
    return Outgoing(queue.bindings[0], body, "test", **fields)  # type: ignore[arg-type]


async def receive_one(consumer: Consumer) -> Delivery:
    async with asyncio.timeout(20):
        (delivery,) = await consumer.receive()
    return delivery


async def receive_bodies(broker: Broker, queue: Queue, count: int, *, prefetch: int = 1) -> list[bytes]:
    """Receive and acknowledge so many messages, one after another."""
    bodies = []
    async with broker.consume(queue.name, prefetch=prefetch) as consumer:
        for _ in range(count):
            delivery = await receive_one(consumer)
            bodies.append(delivery.body)
            await consumer.ack(delivery)
    return bodies


async def depth_becomes(broker: Broker, queue: Queue, expected: int) -> None:
    async def is_expected() -> bool:
        return await broker.depth(queue.name) == expected

    await eventually(is_expected)


async def test_the_highest_priority_is_delivered_first(broker: Broker, queue: Queue) -> None:
    for priority in (1, 3, 5, 2, 4):
        await broker.publish(make_message(queue, str(priority).encode(), priority=priority))

    assert await receive_bodies(broker, queue, 5) == [b"5", b"4", b"3", b"2", b"1"]


async def test_a_consumer_that_takes_several_gets_the_best_first(broker: Broker, queue: Queue) -> None:
    await broker.publish(
        *(make_message(queue, str(priority).encode(), priority=priority) for priority in (1, 3, 5, 2, 4))
    )

    assert await receive_bodies(broker, queue, 5, prefetch=10) == [b"5", b"4", b"3", b"2", b"1"]


async def test_among_equals_the_oldest_is_delivered_first(broker: Broker, queue: Queue) -> None:
    bodies = [str(number).encode() for number in range(20)]
    await broker.publish(*(make_message(queue, body, priority=3) for body in bodies[:10]))
    for body in bodies[10:]:
        await broker.publish(make_message(queue, body, priority=3))

    assert await receive_bodies(broker, queue, 20) == bodies


async def test_a_queue_without_priorities_keeps_the_order_of_publishing(broker: Broker) -> None:
    plain = make_queue()
    await broker.declare(plain)
    await broker.publish(*(make_message(plain, str(priority).encode(), priority=priority) for priority in (1, 5, 3)))

    assert await receive_bodies(broker, plain, 3) == [b"1", b"5", b"3"]


async def test_a_delivery_carries_what_was_published(broker: Broker, queue: Queue) -> None:
    message = make_message(queue, b"\x00\xff{}", priority=4)
    await broker.publish(message)

    async with broker.consume(queue.name, prefetch=1) as consumer:
        delivery = await receive_one(consumer)

    assert delivery.body == message.body
    assert delivery.message_id == str(message.message_id)
    assert delivery.priority == 4
    assert not delivery.redelivered
    assert delivery.headers == {}


async def test_an_acknowledged_message_is_gone(broker: Broker, queue: Queue) -> None:
    await broker.publish(make_message(queue))
    await receive_bodies(broker, queue, 1)

    await broker.publish(make_message(queue, b"next"))

    assert await receive_bodies(broker, queue, 1) == [b"next"]
    assert await broker.depth(queue.name) == 0


async def test_several_deliveries_are_received_and_acknowledged_together(broker: Broker, queue: Queue) -> None:
    await broker.publish(*(make_message(queue, str(number).encode()) for number in range(10)))
    received: list[Delivery] = []
    async with broker.consume(queue.name, prefetch=10) as consumer:
        async with asyncio.timeout(20):
            while len(received) < 10:
                taken = await consumer.receive(4)
                assert 1 <= len(taken) <= 4
                received += taken
        # Some in the middle first: settling is not bound to the order of delivery.
        await consumer.ack(*received[3:6])
        await consumer.ack(*received[:3], *received[6:])
        await consumer.ack(*received)

    await depth_becomes(broker, queue, 0)
    await broker.publish(make_message(queue, b"next"))
    assert await receive_bodies(broker, queue, 1) == [b"next"]


async def test_a_requeued_message_keeps_its_priority_and_says_that_it_was_delivered(
    broker: Broker, queue: Queue
) -> None:
    await broker.publish(make_message(queue, b"high", priority=5), make_message(queue, b"low", priority=1))
    async with broker.consume(queue.name, prefetch=1) as consumer:
        await consumer.requeue(await receive_one(consumer))

        again = await receive_one(consumer)
        await consumer.ack(again)
        other = await receive_one(consumer)

    assert (again.body, again.priority, again.redelivered) == (b"high", 5, True)
    assert (other.body, other.redelivered) == (b"low", False)


async def test_a_message_requeued_by_one_consumer_reaches_another_that_waits(broker: Broker, queue: Queue) -> None:
    async with broker.consume(queue.name, prefetch=1) as first, broker.consume(queue.name, prefetch=1) as second:
        await broker.publish(make_message(queue))
        waiting = [asyncio.create_task(receive_one(consumer)) for consumer in (first, second)]
        (done,), (other,) = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        holder = first if done is waiting[0] else second
        await holder.cancel()

        await holder.requeue(done.result())

        assert (await other).redelivered


async def test_closing_a_consumer_gives_back_what_it_holds(broker: Broker, queue: Queue) -> None:
    await broker.publish(*(make_message(queue, body) for body in (b"1", b"2", b"3")))
    async with broker.consume(queue.name, prefetch=2) as consumer:
        assert (await receive_one(consumer)).body == b"1"

    await depth_becomes(broker, queue, 3)
    async with broker.consume(queue.name, prefetch=1) as consumer:
        again = await receive_one(consumer)
        assert again.redelivered
        assert again.body == b"1"


async def test_a_message_comes_back_when_its_consumer_vanishes(bus: Bus, broker: Broker, queue: Queue) -> None:
    await broker.publish(make_message(queue, b"precious"))
    async with bus.lost_consumer(queue):
        assert await broker.depth(queue.name) == 0

    async with broker.consume(queue.name, prefetch=1) as consumer:
        delivery = await receive_one(consumer)

    assert delivery.body == b"precious"
    assert delivery.redelivered


async def test_a_consumer_never_holds_more_than_its_prefetch_and_leaves_the_rest_to_others(
    broker: Broker, queue: Queue
) -> None:
    async with broker.consume(queue.name, prefetch=1) as slow:
        await broker.publish(make_message(queue, b"0"))
        held = await receive_one(slow)
        await broker.publish(*(make_message(queue, str(number).encode()) for number in range(1, 6)))
        waiting = asyncio.create_task(receive_one(slow))

        others = await receive_bodies(broker, queue, 5)

        assert others == [b"1", b"2", b"3", b"4", b"5"]
        assert not waiting.done()
        await slow.ack(held)
        await broker.publish(make_message(queue, b"6"))
        assert (await waiting).body == b"6"


async def test_a_consumer_that_holds_as_much_as_it_may_is_given_nothing_more(broker: Broker, queue: Queue) -> None:
    await broker.publish(*(make_message(queue) for _ in range(3)))
    async with broker.consume(queue.name, prefetch=1) as consumer:
        await receive_one(consumer)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await consumer.receive(3)

        assert await broker.depth(queue.name) == 2


async def test_receive_can_be_given_up_without_losing_a_message(broker: Broker, queue: Queue) -> None:
    async with broker.consume(queue.name, prefetch=1) as consumer:
        for number in range(10):
            waiting = asyncio.create_task(consumer.receive())
            await asyncio.sleep(0)
            await broker.publish(make_message(queue, str(number).encode()))
            waiting.cancel()
            await asyncio.wait([waiting])
            delivery = await receive_one(consumer) if waiting.cancelled() else waiting.result()[0]
            assert delivery.body == str(number).encode()
            await consumer.ack(delivery)


async def test_a_cancelled_consumer_settles_what_it_holds_and_gets_nothing_more(broker: Broker, queue: Queue) -> None:
    await broker.publish(*(make_message(queue, body) for body in (b"1", b"2", b"3")))
    async with broker.consume(queue.name, prefetch=2) as consumer:
        held = await receive_one(consumer)

        await consumer.cancel()

        await depth_becomes(broker, queue, 2)
        with pytest.raises(ConsumerCancelled):
            await consumer.receive()
        await consumer.ack(held)
    assert await receive_bodies(broker, queue, 2) == [b"2", b"3"]


async def test_cancelling_ends_a_receive_that_waits(broker: Broker, queue: Queue) -> None:
    async with broker.consume(queue.name, prefetch=1) as consumer:
        waiting = asyncio.create_task(consumer.receive())
        await asyncio.sleep(0)

        await consumer.cancel()

        with pytest.raises(ConsumerCancelled):
            await waiting


async def test_a_delivery_says_who_sent_it_as_the_broker_knows_it(bus: Bus, broker: Broker, queue: Queue) -> None:
    await broker.publish(make_message(queue))

    async with broker.consume(queue.name, prefetch=1) as consumer:
        delivery = await receive_one(consumer)
        await consumer.ack(delivery)

    assert delivery.sender == bus.user
    assert delivery.routing_key == (None if bus.user is None else queue.bindings[0].routing_key)


async def test_a_dead_letter_keeps_its_body_and_says_why_and_whence(broker: Broker, queue: Queue) -> None:
    await broker.declare(DEAD_LETTER_QUEUE)
    message = make_message(queue, b"\xffnot json", priority=5)
    await broker.publish(message)
    async with broker.consume(queue.name, prefetch=1) as consumer:
        await consumer.dead_letter(await receive_one(consumer), "cannot be read: \x00 in line 1")

    async with broker.consume(DEAD_LETTER_QUEUE.name, prefetch=1) as consumer:
        dead = await receive_one(consumer)
        await consumer.ack(dead)

    assert dead.body == message.body
    assert dead.message_id == str(message.message_id)
    assert dead.priority == 5
    assert dead.headers == {"reason": "cannot be read: \N{REPLACEMENT CHARACTER} in line 1", "queue": queue.name}
    await depth_becomes(broker, queue, 0)


async def test_a_message_is_not_lost_when_there_are_no_dead_letters(broker: Broker, queue: Queue) -> None:
    await broker.publish(make_message(queue))
    async with broker.consume(queue.name, prefetch=1) as consumer:
        delivery = await receive_one(consumer)

        with pytest.raises(Unroutable):
            await consumer.dead_letter(delivery, "unreadable")

    await depth_becomes(broker, queue, 1)


async def test_a_message_that_no_queue_takes_is_refused(broker: Broker, queue: Queue) -> None:
    exchange = queue.bindings[0].exchange

    with pytest.raises(Unroutable):
        await broker.publish(Outgoing(Address(exchange, "nobody"), b"", "test"))
    with pytest.raises(Unroutable):
        await broker.publish(Outgoing(Address(make_exchange(ExchangeType.TOPIC), "nobody"), b"", "test"))

    await broker.publish(make_message(queue, b"still works"))
    assert await receive_bodies(broker, queue, 1) == [b"still works"]


async def test_an_expired_message_is_not_delivered(broker: Broker, queue: Queue) -> None:
    await broker.publish(
        make_message(queue, b"late", expires_after=timedelta(milliseconds=50)),
        make_message(queue, b"in time", expires_after=timedelta(minutes=5)),
    )
    await depth_becomes(broker, queue, 1)

    assert await receive_bodies(broker, queue, 1) == [b"in time"]
    assert await broker.depth(queue.name) == 0


async def test_the_depth_counts_what_waits_and_not_what_is_held(broker: Broker, queue: Queue) -> None:
    assert await broker.depth(queue.name) == 0
    await broker.publish(*(make_message(queue) for _ in range(3)))
    await depth_becomes(broker, queue, 3)

    async with broker.consume(queue.name, prefetch=1) as consumer:
        await receive_one(consumer)
        await depth_becomes(broker, queue, 2)


async def test_a_topic_exchange_routes_by_pattern(broker: Broker) -> None:
    topic = make_exchange(ExchangeType.TOPIC)
    one_word, rest, exact = (
        Queue(make_queue().name, (Address(topic, pattern),)) for pattern in ("*.claims", "a.#", "a.claims")
    )
    await broker.declare(one_word, rest, exact)

    for key in ("a.claims", "b.claims", "a", "a.b.c"):
        await broker.publish(Outgoing(Address(topic, key), key.encode(), "test"))
    with pytest.raises(Unroutable):
        await broker.publish(Outgoing(Address(topic, "b.results"), b"", "test"))

    assert await receive_bodies(broker, one_word, 2) == [b"a.claims", b"b.claims"]
    assert await receive_bodies(broker, rest, 3) == [b"a.claims", b"a", b"a.b.c"]
    assert await receive_bodies(broker, exact, 1) == [b"a.claims"]


async def test_a_fanout_exchange_fills_every_queue_bound_to_it(broker: Broker) -> None:
    fanout = make_exchange(ExchangeType.FANOUT)
    queues = [Queue(make_queue().name, (Address(fanout, ""),)) for _ in range(2)]
    await broker.declare(*queues)

    await broker.publish(Outgoing(Address(fanout, "whatever"), b"news", "test"))

    assert [await receive_bodies(broker, queue, 1) for queue in queues] == [[b"news"], [b"news"]]


async def test_declaring_again_changes_nothing(broker: Broker, queue: Queue) -> None:
    await broker.publish(make_message(queue))

    await broker.declare(queue)

    await depth_becomes(broker, queue, 1)
    assert await receive_bodies(broker, queue, 1) == [b"body"]


async def test_a_deleted_queue_is_gone_with_what_was_in_it(broker: Broker, queue: Queue) -> None:
    await broker.publish(make_message(queue))

    await broker.delete(queue.name)
    await broker.delete(queue.name)

    with pytest.raises(Unroutable):
        await broker.publish(make_message(queue))
    await broker.declare(queue)
    assert await broker.depth(queue.name) == 0


async def test_a_queue_declared_by_another_is_used_at_once(bus: Bus, broker: Broker, queue: Queue) -> None:
    await broker.publish(make_message(queue))
    async with bus.open() as other:
        late = make_queue()
        await other.declare(late)

    await broker.publish(make_message(late, b"found"))

    assert await receive_bodies(broker, late, 1) == [b"found"]


async def test_a_consumer_may_come_before_its_queue(broker: Broker) -> None:
    late = make_queue()
    async with broker.consume(late.name, prefetch=1) as consumer:
        waiting = asyncio.create_task(receive_one(consumer))
        await asyncio.sleep(0)
        await broker.declare(late)

        await broker.publish(make_message(late, b"finally"))

        assert (await waiting).body == b"finally"


async def test_a_consumer_survives_that_its_queue_is_deleted_and_declared_again(broker: Broker, queue: Queue) -> None:
    async with broker.consume(queue.name, prefetch=1) as consumer:
        await broker.publish(make_message(queue))
        await consumer.ack(await receive_one(consumer))

        await broker.delete(queue.name)
        await broker.declare(queue)
        await broker.publish(make_message(queue, b"again"))

        assert (await receive_one(consumer)).body == b"again"


async def test_what_many_publish_at_once_all_arrives(bus: Bus, broker: Broker, queue: Queue) -> None:
    bodies = {str(number).encode() for number in range(200)}
    async with bus.open() as other:
        await asyncio.gather(
            *(
                (broker, other)[number % 2].publish(make_message(queue, body))
                for number, body in enumerate(sorted(bodies))
            )
        )

    received = await receive_bodies(broker, queue, 200, prefetch=50)

    assert sorted(received) == sorted(bodies)


async def test_several_consumers_share_a_queue_without_getting_a_message_twice(
    bus: Bus, broker: Broker, queue: Queue
) -> None:
    await broker.publish(*(make_message(queue, str(number).encode()) for number in range(100)))
    received: list[bytes] = []

    async def work(from_broker: Broker) -> None:
        async with from_broker.consume(queue.name, prefetch=2) as consumer:
            while len(received) < 100:
                for delivery in await consumer.receive(2):
                    received.append(delivery.body)
                    await consumer.ack(delivery)

    async with bus.open() as other:
        workers = [asyncio.create_task(work(one)) for one in (broker, broker, other)]
        await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)

    assert sorted(received) == sorted(str(number).encode() for number in range(100))


async def test_a_large_message_arrives_whole(broker: Broker, queue: Queue) -> None:
    body = bytes(range(256)) * 4096

    await broker.publish(make_message(queue, body))

    assert await receive_bodies(broker, queue, 1) == [body]


async def test_publishing_nothing_is_allowed(broker: Broker) -> None:
    await broker.publish()


async def test_the_check_passes_while_the_broker_answers(broker: Broker) -> None:
    await broker.check()


async def test_unroutable_is_told_from_an_outage(broker: Broker, queue: Queue) -> None:
    await broker.publish(make_message(queue))

    with pytest.raises(BrokerUnavailable) as refused:
        await broker.publish(Outgoing(Address(queue.bindings[0].exchange, "nobody"), b"", "test"))

    assert isinstance(refused.value, Unroutable)


async def test_a_reconnect_loses_nothing(broker: Broker, queue: Queue) -> None:
    await broker.publish(make_message(queue, b"before"))

    await broker.reconnect()

    async with asyncio.timeout(40), broker.consume(queue.name, prefetch=1) as consumer:
        delivery = await receive_one(consumer)
        assert delivery.body == b"before"
        await consumer.ack(delivery)
