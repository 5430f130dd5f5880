"""What the contract promises when the server is lost, on the backends that have one."""

import asyncio
from datetime import timedelta

import pytest

from common.broker.base import Broker, BrokerUnavailable, Outgoing
from common.broker.connect import open_broker
from tests.contract.buses import RemoteBus
from tests.contract.conftest import make_queue
from tests.contract.test_broker import make_message, receive_bodies, receive_one
from tests.eventually import eventually
from tests.services.ports import free_ports


async def publish_until_confirmed(broker: Broker, message: Outgoing) -> None:
    """Publish as the contract asks callers to: again after an unknown outcome."""
    while True:
        try:
            await broker.publish(message)
        except BrokerUnavailable:
            await asyncio.sleep(0.05)
        else:
            return


async def test_nothing_confirmed_is_lost_when_all_connections_are_cut_under_load(remote_bus: RemoteBus) -> None:
    queue = make_queue(has_priorities=True)
    confirmed: set[bytes] = set()
    received: set[bytes] = set()

    async def produce(broker: Broker) -> None:
        for number in range(300):
            body = str(number).encode()
            await publish_until_confirmed(broker, make_message(queue, body))
            confirmed.add(body)
            await asyncio.sleep(0.005)

    async def consume(broker: Broker) -> None:
        async with broker.consume(queue.name, prefetch=10) as consumer:
            while True:
                deliveries = await consumer.receive(5)
                received.update(delivery.body for delivery in deliveries)
                await consumer.ack(*deliveries)

    async with remote_bus.open() as producing, remote_bus.open() as consuming:
        await producing.declare(queue)
        consumers = [asyncio.create_task(consume(consuming)) for _ in range(2)]
        producer = asyncio.create_task(produce(producing))
        for threshold in (50, 150):
            await eventually(lambda: len(confirmed) > threshold, timeout=60)  # noqa: B023 - awaited at once
            await remote_bus.cut_connections()
        await producer

        await eventually(lambda: received >= confirmed, timeout=30)

        async def is_empty() -> bool:
            try:
                return await consuming.depth(queue.name) == 0
            except BrokerUnavailable:  # the second cut may be noticed only now
                return False

        await eventually(is_empty)
        for consumer in consumers:
            consumer.cancel()
        await asyncio.wait(consumers)
    async with remote_bus.open() as later:
        assert await later.depth(queue.name) == 0
        await later.delete(queue.name)
    assert received == confirmed


async def test_settling_a_delivery_of_a_lost_connection_does_nothing(remote_bus: RemoteBus) -> None:
    queue = make_queue()
    async with remote_bus.open() as broker, broker.consume(queue.name, prefetch=1) as consumer:
        await broker.declare(queue)
        await publish_until_confirmed(broker, make_message(queue, b"first"))
        stale = await receive_one(consumer)

        await remote_bus.cut_connections()
        again = await receive_one(consumer)
        await consumer.ack(stale)
        await consumer.requeue(stale)
        await consumer.dead_letter(stale, "too late")

        assert (again.body, again.redelivered) == (b"first", True)
        await consumer.ack(again)
        await publish_until_confirmed(broker, make_message(queue, b"second"))
        assert (await receive_one(consumer)).body == b"second"
        await broker.delete(queue.name)


async def test_an_outage_makes_publish_raise_in_time_and_ends_by_itself(remote_bus: RemoteBus) -> None:
    queue = make_queue()
    loop = asyncio.get_running_loop()
    async with (
        remote_bus.open(deadline=timedelta(seconds=3)) as broker,
        broker.consume(queue.name, prefetch=1) as consumer,
    ):
        await broker.declare(queue)
        waiting = asyncio.create_task(consumer.receive())
        assert broker.is_connected
        async with remote_bus.outage():
            started = loop.time()
            with pytest.raises(BrokerUnavailable):
                await broker.publish(make_message(queue, b"lost"))
            assert loop.time() - started < 5
            with pytest.raises(BrokerUnavailable):
                await broker.check()
            await eventually(lambda: not broker.is_connected)

        await publish_until_confirmed(broker, make_message(queue, b"after"))

        async with asyncio.timeout(40):
            bodies = {(await waiting)[0].body}
        assert bodies <= {b"lost", b"after"}
        await broker.check()


async def test_a_stored_message_survives_that_its_publisher_leaves(remote_bus: RemoteBus) -> None:
    queue = make_queue()
    async with remote_bus.open() as broker:
        await broker.declare(queue)
        await broker.publish(make_message(queue, b"kept"))

    async with remote_bus.open() as later:
        assert await receive_bodies(later, queue, 1) == [b"kept"]
        await later.delete(queue.name)


@pytest.mark.parametrize("scheme", ["amqp", "postgresql"])
async def test_a_broker_that_cannot_be_reached_is_named_without_its_password(scheme: str) -> None:
    (port,) = free_ports(1)

    with pytest.raises(BrokerUnavailable) as refused:
        async with open_broker(f"{scheme}://someone:hidden@127.0.0.1:{port}/place", name="contract"):
            pass

    assert f"127.0.0.1:{port}/place" in str(refused.value)
    assert "hidden" not in str(refused.value)


async def test_queues_declared_here_come_back_with_a_broker_that_lost_them(remote_bus: RemoteBus) -> None:
    queue = make_queue()
    async with remote_bus.open() as broker, remote_bus.open() as destroyer:
        await broker.declare(queue)
        await destroyer.delete(queue.name)

        await remote_bus.cut_connections()

        async with asyncio.timeout(15):
            await publish_until_confirmed(broker, make_message(queue, b"works again"))
        assert await receive_bodies(broker, queue, 1) == [b"works again"]
        await broker.delete(queue.name)


async def test_a_reconnect_replaces_connections_that_look_well_and_consumers_go_on(remote_bus: RemoteBus) -> None:
    queue = make_queue()
    async with remote_bus.open() as broker, broker.consume(queue.name, prefetch=1) as consumer:
        await broker.declare(queue)
        await publish_until_confirmed(broker, make_message(queue, b"first"))
        held = await receive_one(consumer)

        await broker.reconnect()
        again = await receive_one(consumer)
        await consumer.ack(held)

        assert (again.body, again.redelivered) == (b"first", True)
        await consumer.ack(again)
        await publish_until_confirmed(broker, make_message(queue, b"second"))
        assert (await receive_one(consumer)).body == b"second"
        await broker.check()
        await broker.delete(queue.name)
