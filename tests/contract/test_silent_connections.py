"""What the contract promises when connections carry nothing any more, and nobody has closed them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from common.broker import postgres_session, rabbitmq_connection
from common.broker.base import Broker, BrokerUnavailable, Queue
from common.broker.postgres import open_postgres_broker
from common.broker.rabbitmq import open_rabbitmq_broker
from common.broker.rabbitmq_wire import WiredConnection
from tests.contract.conftest import make_queue
from tests.contract.proxy import Proxy
from tests.contract.test_broker import make_message, receive_one
from tests.contract.test_broker_outage import publish_until_confirmed
from tests.eventually import eventually

# Less than the client library for RabbitMQ, and the deadline of a call, would take.
SOON_SECONDS = 8.5


@dataclass(frozen=True)
class Way:
    """A bus behind a proxy, whose brokers ask sooner than usual whether it is still there."""

    scheme: str
    proxy: Proxy

    def open(self) -> AbstractAsyncContextManager[Broker]:
        if self.scheme == "amqp":
            return open_rabbitmq_broker(self.proxy.url, name="contract")
        return open_postgres_broker(self.proxy.url, name="contract", deadline=timedelta(seconds=2))


@pytest.fixture(params=["postgresql", "amqp"])
def scheme(request: pytest.FixtureRequest) -> str:
    scheme: str = request.param
    return scheme


@pytest.fixture
def server_url(scheme: str, request: pytest.FixtureRequest) -> str:
    # Asked for by name, so that a server is started only for the tests that use it.
    url: str = request.getfixturevalue("amqp_url" if scheme == "amqp" else "bus_database")
    return url


@pytest.fixture
async def way(scheme: str, server_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Way]:
    monkeypatch.setattr(rabbitmq_connection, "HEARTBEAT_SECONDS", 2)
    monkeypatch.setattr(postgres_session, "SWEEP_DEADLINE", timedelta(seconds=2))
    async with Proxy(server_url) as proxy:
        yield Way(scheme, proxy)


@pytest.fixture
def queue() -> Queue:
    return make_queue()


async def test_a_consumer_whose_connection_fell_silent_gets_what_is_published_later(way: Way, queue: Queue) -> None:
    async with way.open() as broker, broker.consume(queue.name, prefetch=1) as consumer:
        await broker.declare(queue)
        await broker.publish(make_message(queue, b"before"))
        await consumer.ack(await receive_one(consumer))
        before = broker.generation

        way.proxy.silence()
        await eventually(lambda: broker.generation != before, timeout=SOON_SECONDS)

        await publish_until_confirmed(broker, make_message(queue, b"after"))
        # The server may have given it to the connection of which it does not know yet that it is dead.
        async with asyncio.timeout(20):
            [delivery] = await consumer.receive()
        assert delivery.body == b"after"
        await broker.delete(queue.name)


async def test_a_publish_succeeds_soon_after_connections_fell_silent(way: Way, queue: Queue) -> None:
    async with way.open() as broker:
        await broker.declare(queue)
        await broker.publish(make_message(queue, b"before"))

        way.proxy.silence()

        async with asyncio.timeout(SOON_SECONDS):
            await publish_until_confirmed(broker, make_message(queue, b"after"))
        await broker.delete(queue.name)


async def test_a_connection_that_confirms_nothing_is_replaced_also_when_nobody_waits_for_the_deadline(
    amqp_url: str, queue: Queue
) -> None:
    """The broker is heard, so that only what is not confirmed tells that it hears nothing."""
    async with (
        Proxy(amqp_url) as proxy,
        open_rabbitmq_broker(proxy.url, name="contract", deadline=timedelta(seconds=1)) as broker,
    ):
        await broker.declare(queue)
        await broker.publish(make_message(queue, b"before"))
        proxy.silence(b"(publishing)", to_server_only=True)

        async def is_published() -> bool:
            try:
                async with asyncio.timeout(0.5):
                    await broker.publish(make_message(queue, b"after"))
            except (TimeoutError, BrokerUnavailable):
                return False
            return True

        await eventually(is_published, timeout=2 * rabbitmq_connection.HEARTBEAT_SECONDS - 1)
        await broker.delete(queue.name)


async def test_a_connection_that_was_silent_to_its_end_is_closed_for_the_library_too(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_connection, "CLOSE_DEADLINE", timedelta(seconds=0.2))
    made: list[WiredConnection] = []
    make = WiredConnection.__init__

    def note(connection: WiredConnection, *arguments: Any, **options: Any) -> None:
        made.append(connection)
        make(connection, *arguments, **options)

    monkeypatch.setattr(WiredConnection, "__init__", note)
    async with Proxy(amqp_url) as proxy, open_rabbitmq_broker(proxy.url, name="contract"):
        proxy.silence()

    assert made
    assert all(connection.is_closed for connection in made)
