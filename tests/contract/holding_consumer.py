"""A process that takes one delivery and holds it until it is killed; its arguments are a broker URL and a queue."""

import asyncio
import sys

from common.broker.connect import open_broker


async def hold(url: str, queue: str) -> None:
    async with open_broker(url, name="holding") as broker, broker.consume(queue, prefetch=1) as consumer:
        await consumer.receive()
        print("holding", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1], sys.argv[2]))
