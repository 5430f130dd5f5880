"""What a publish asks of the server, as a program sees it that knows nothing of our broker."""

from datetime import timedelta
from urllib.parse import urlsplit

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage, DeliveryMode

from common.broker.base import Outgoing
from common.broker.postgres import open_postgres_broker
from common.broker.rabbitmq import open_rabbitmq_broker
from common.broker.topology import DEAD_LETTER_QUEUE
from tests.contract.conftest import make_queue
from tests.contract.test_broker import receive_one
from tests.services.postgres import Postgres


async def fetched(url: str, queue: str) -> AbstractIncomingMessage:
    """Take the next message of a queue."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        message = await (await channel.get_queue(queue)).get(timeout=5, no_ack=True)
    assert message is not None
    return message


@pytest.mark.parametrize(
    ("persistent", "mode"), [(True, DeliveryMode.PERSISTENT), (False, DeliveryMode.NOT_PERSISTENT)]
)
async def test_rabbitmq_keeps_on_disk_what_must_survive_a_restart_and_nothing_else(
    amqp_url: str, persistent: bool, mode: DeliveryMode
) -> None:
    queue = make_queue()
    async with open_rabbitmq_broker(amqp_url, name="tests") as broker:
        await broker.declare(queue)

        await broker.publish(Outgoing(queue.bindings[0], b"body", "test", persistent=persistent))

        assert (await fetched(amqp_url, queue.name)).delivery_mode is mode


async def test_rabbitmq_keeps_a_dead_letter_on_disk_also_of_a_message_that_it_did_not(amqp_url: str) -> None:
    queue = make_queue()
    async with open_rabbitmq_broker(amqp_url, name="tests") as broker:
        await broker.declare(queue, DEAD_LETTER_QUEUE)
        await broker.publish(Outgoing(queue.bindings[0], b"body", "test", persistent=False))

        async with broker.consume(queue.name, prefetch=1) as consumer:
            await consumer.dead_letter(await receive_one(consumer), "unreadable")

        assert (await fetched(amqp_url, DEAD_LETTER_QUEUE.name)).delivery_mode is DeliveryMode.PERSISTENT


async def test_rabbitmq_knows_when_a_message_is_of_no_use_any_more(amqp_url: str) -> None:
    queue = make_queue()
    async with open_rabbitmq_broker(amqp_url, name="tests") as broker:
        await broker.declare(queue)

        await broker.publish(Outgoing(queue.bindings[0], b"body", "test", expires_after=timedelta(minutes=5)))

        assert (await fetched(amqp_url, queue.name)).expiration == 300.0


async def test_postgresql_has_a_message_on_disk_before_its_publish_returns(
    postgres: Postgres, database_url: str
) -> None:
    name = urlsplit(database_url).path.removeprefix("/")
    # What a server has where nobody changed it; that of the tests may have been.
    await postgres.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = on')

    async with open_postgres_broker(database_url, name="tests") as broker:
        assert await broker._storing.fetchval("SHOW synchronous_commit") == "on"
