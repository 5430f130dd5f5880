"""Procrastinate: PostgreSQL is the queue and keeps how each job ended; no broker."""

import asyncio
import sys
import time

import procrastinate

from bench.handing_in import in_tasks
from bench.peers.program import DATABASE_URL, main

BULK = 1000
ENDED = "SELECT count(*) AS ended FROM procrastinate_jobs WHERE id = %(id)s AND status = 'succeeded'"

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DATABASE_URL, min_size=4, max_size=16))


@app.task(name="bench.echo", queue="bench")
async def echo(message: str) -> str:
    return message


async def ended(job: int) -> None:
    """Look every millisecond until a job has ended: nothing tells of it."""
    while True:
        row = await app.connector.execute_query_one_async(ENDED, id=job)
        if row["ended"]:
            return
        await asyncio.sleep(0.001)


class ProcrastinatePeer:
    def prepare(self) -> None:
        async def make() -> None:
            async with app.open_async():
                await app.schema_manager.apply_schema_async()

        asyncio.run(make())

    def worker(self) -> None:
        async def run() -> None:
            async with app.open_async():
                await app.run_worker_async(concurrency=16, queues=["bench"])

        asyncio.run(run())

    def produce(self, count: int, callers: int, *, bulk: bool) -> None:
        async def run() -> None:
            async with app.open_async():
                if bulk:
                    for begin in range(0, count, BULK):
                        jobs = [{"message": "x"} for _ in range(min(BULK, count - begin))]
                        await echo.batch_defer_async(*jobs)
                else:
                    await in_tasks(lambda: echo.defer_async(message="x"), count, callers)

        asyncio.run(run())

    def latency(self, count: int) -> list[float]:
        async def run() -> list[float]:
            seconds = []
            async with app.open_async():
                for _ in range(count):
                    began = time.monotonic()
                    job = await echo.defer_async(message="x")
                    await ended(job)
                    seconds.append(time.monotonic() - began)
            return seconds

        return asyncio.run(run())


if __name__ == "__main__":
    sys.modules["bench.peers.procrastinate_peer"] = sys.modules["__main__"]
    main(ProcrastinatePeer())
