"""FastStream on RabbitMQ: confirmed, persistent, acknowledged at the end; the handler stores its result itself."""

import asyncio
import sys
from uuid import uuid4

import asyncpg
from faststream import FastStream
from faststream.middlewares import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitMessage, RabbitQueue

from bench.handing_in import in_tasks
from bench.peers.own_results import make_table, timed
from bench.peers.program import AMQP_URL, DATABASE_URL, main

STORE = "INSERT INTO stored_result (task_id, result) VALUES ($1, $2) ON CONFLICT DO NOTHING"

broker = RabbitBroker(AMQP_URL, default_channel=Channel(prefetch_count=100), logger=None)
queue = RabbitQueue("bench-faststream", durable=True)
pools: list["asyncpg.Pool[asyncpg.Record]"] = []
app = FastStream(broker)


@app.on_startup
async def open_pool() -> None:
    pools.append(await asyncpg.create_pool(DATABASE_URL, min_size=4, max_size=10))


@broker.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR)
async def echo(message: str, raw: RabbitMessage) -> None:
    await pools[0].execute(STORE, raw.message_id, message)


class FastStreamPeer:
    def prepare(self) -> None:
        make_table()

    def worker(self) -> None:
        asyncio.run(app.run())

    def produce(self, count: int, callers: int, *, bulk: bool) -> None:
        async def run() -> None:
            await broker.connect()
            await broker.declare_queue(queue)
            await in_tasks(
                lambda: broker.publish("x", queue, persist=True, message_id=str(uuid4()), mandatory=True),
                count,
                callers,
            )
            await broker.stop()

        asyncio.run(run())

    def latency(self, count: int) -> list[float]:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(broker.connect())

        def begin() -> str:
            message_id = str(uuid4())
            loop.run_until_complete(broker.publish("x", queue, persist=True, message_id=message_id, mandatory=True))
            return message_id

        seconds = timed(begin, count)
        loop.run_until_complete(broker.stop())
        loop.close()
        return seconds


if __name__ == "__main__":
    sys.modules["bench.peers.faststream_peer"] = sys.modules["__main__"]
    main(FastStreamPeer())
