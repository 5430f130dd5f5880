"""PgQueuer: PostgreSQL is the queue, with a log of what has ended; the handler stores its result there itself.

The row of a job is deleted, and its end is logged, in batches after the result is stored. A job without a heartbeat is
given out again. The tables are those of the durability `durable`.
"""

import asyncio
import sys

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from bench.handing_in import in_tasks
from bench.peers.own_results import make_table, timed
from bench.peers.program import DATABASE_URL, main

BULK = 1000
# The guide on tuning advises larger batches than the default of 10 for short jobs.
BATCH = 100
STORE = "INSERT INTO stored_result (task_id, result) VALUES ($1, $2) ON CONFLICT DO NOTHING"


class PgqueuerPeer:
    def prepare(self) -> None:
        make_table()

        async def make() -> None:
            connection = await asyncpg.connect(DATABASE_URL)
            queries = Queries(AsyncpgDriver(connection))
            await queries.install()
            await queries.optimize_autovacuum()
            await connection.close()

        asyncio.run(make())

    def worker(self) -> None:
        async def run() -> None:
            # The guide on tuning advises a connection for the queue and a pool for everything else.
            queue = PgQueuer(AsyncpgDriver(await asyncpg.connect(DATABASE_URL)))
            pool = await asyncpg.create_pool(DATABASE_URL, min_size=4, max_size=10)

            @queue.entrypoint("echo")
            async def echo(job: Job) -> None:
                assert job.payload is not None
                await pool.execute(STORE, str(job.id), job.payload.decode())

            await queue.run(batch_size=BATCH)

        uvloop.run(run())

    def produce(self, count: int, callers: int, *, bulk: bool) -> None:
        async def run() -> None:
            async with asyncpg.create_pool(DATABASE_URL, min_size=4, max_size=16) as pool:
                queries = Queries(AsyncpgPoolDriver(pool))
                if bulk:
                    for begin in range(0, count, BULK):
                        size = min(BULK, count - begin)
                        await queries.enqueue(["echo"] * size, [b"x"] * size, [0] * size)
                else:
                    await in_tasks(lambda: queries.enqueue("echo", b"x"), count, callers)

        uvloop.run(run())

    def latency(self, count: int) -> list[float]:
        loop = uvloop.new_event_loop()
        connection = loop.run_until_complete(asyncpg.connect(DATABASE_URL))
        queries = Queries(AsyncpgDriver(connection))

        def begin() -> str:
            return str(loop.run_until_complete(queries.enqueue("echo", b"x"))[0])

        seconds = timed(begin, count)
        loop.run_until_complete(connection.close())
        loop.close()
        return seconds


if __name__ == "__main__":
    sys.modules["bench.peers.pgqueuer_peer"] = sys.modules["__main__"]
    main(PgqueuerPeer())
