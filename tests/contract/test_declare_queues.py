"""The exchanges and queues, declared by a program that knows nothing but aio-pika."""

import aio_pika

from common.broker.topology import DEAD_LETTERS, REPLY_QUEUES, WORK
from common.rabbitmq import declare_queues


async def test_a_message_to_the_exchange_of_work_reaches_the_queue_of_its_pool(amqp_url: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()

        await declare_queues(channel)
        await declare_queues(channel)

        for name in (DEAD_LETTERS, *(queue.name for queue in REPLY_QUEUES), "work.infra"):
            assert (await channel.get_queue(name, ensure=True)).name == name
        work = await channel.get_exchange(WORK.name, ensure=True)
        await work.publish(aio_pika.Message(b"ticket"), "work.infra")
        received = await (await channel.get_queue("work.infra")).get(timeout=5)
        assert received.body == b"ticket"
