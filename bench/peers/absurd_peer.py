"""Absurd: PostgreSQL is the queue and keeps each task with its runs and its result; no broker.

The end of a task and its result are one commit. A run has a lease; a task whose lease ran out is run again.
"""

import asyncio
import sys
import time
from typing import Any

import absurdctl
import psycopg
from absurd_sdk import AsyncAbsurd

from bench.handing_in import shares
from bench.peers.program import DATABASE_URL, main

BULK = 1000
QUEUE = "bench"
# A client has one connection, which commits one result at a time; several clients share the worker process.
CLIENTS = 8
CONCURRENCY = 16
# Clients poll the queue, by default four times a second, which would be the idle latency.
POLL_SECONDS = 0.02


async def echo(params: dict[str, str], context: Any) -> str:
    return params["message"]


def make_client() -> AsyncAbsurd:
    client = AsyncAbsurd(DATABASE_URL, queue_name=QUEUE)
    client.register_task("bench.echo")(echo)
    return client


async def spawn(client: AsyncAbsurd) -> str:
    return str((await client.spawn("bench.echo", {"message": "x"}))["task_id"])


class AbsurdPeer:
    def prepare(self) -> None:
        with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
            connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)

        async def make() -> None:
            client = make_client()
            await client.create_queue()
            await client.close()

        asyncio.run(make())

    def worker(self) -> None:
        async def run() -> None:
            await asyncio.gather(
                *(
                    make_client().start_worker(
                        worker_id=f"bench-{number}", concurrency=CONCURRENCY, poll_interval=POLL_SECONDS
                    )
                    for number in range(CLIENTS)
                )
            )

        asyncio.run(run())

    def produce(self, count: int, callers: int, *, bulk: bool) -> None:
        async def one_by_one(share: int) -> None:
            client = make_client()
            for _ in range(share):
                await spawn(client)
            await client.close()

        async def run() -> None:
            if bulk:
                await self._in_transactions(count)
            else:
                await asyncio.gather(*(one_by_one(share) for share in shares(count, callers)))

        asyncio.run(run())

    async def _in_transactions(self, count: int) -> None:
        """Spawn many in one transaction: Absurd has no call for many tasks, and this is the nearest."""
        async with await psycopg.AsyncConnection.connect(DATABASE_URL, autocommit=True) as connection:
            client = AsyncAbsurd(connection, queue_name=QUEUE)
            client.register_task("bench.echo")(echo)
            for begin in range(0, count, BULK):
                async with connection.transaction():
                    for _ in range(min(BULK, count - begin)):
                        await spawn(client)

    def latency(self, count: int) -> list[float]:
        async def run() -> list[float]:
            client = make_client()
            seconds = []
            for _ in range(count):
                began = time.monotonic()
                await self._ended(client, await spawn(client))
                seconds.append(time.monotonic() - began)
            await client.close()
            return seconds

        return asyncio.run(run())

    async def _ended(self, client: AsyncAbsurd, task_id: str) -> None:
        """Look every millisecond until a task has its result; `await_task_result` would look every 50 ms at first."""
        while True:
            snapshot = await client.fetch_task_result(task_id)
            if snapshot is not None and snapshot.state == "completed":
                return
            await asyncio.sleep(0.001)


if __name__ == "__main__":
    sys.modules["bench.peers.absurd_peer"] = sys.modules["__main__"]
    main(AbsurdPeer())
