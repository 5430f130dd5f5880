"""The exchanges and queues, declared by a program that knows nothing but aio-pika."""

from uuid import uuid4

import aio_pika

from common.broker.topology import DEAD_LETTERS, REPLY_QUEUES, WORK, work_address, work_queue
from common.rabbitmq import declare_queues


async def test_a_message_to_the_exchange_of_work_reaches_the_queue_of_its_agent(amqp_url: str) -> None:
    own = work_queue("infra", agent_id := uuid4())
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()

        for _ in range(2):
            await declare_queues(channel)
            await declare_queues(channel, [own])

        for name in (DEAD_LETTERS, *(queue.name for queue in REPLY_QUEUES), own.name):
            assert (await channel.get_queue(name, ensure=True)).name == name
        work = await channel.get_exchange(WORK.name, ensure=True)
        await work.publish(aio_pika.Message(b"work"), work_address("infra", agent_id).routing_key)
        received = await (await channel.get_queue(own.name)).get(timeout=5)
        assert received.body == b"work"
