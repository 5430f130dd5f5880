"""Chancy: PostgreSQL is the queue and keeps each job; `KeepResult` adds what the job returned to its row.

The ends of jobs are written in batches. A job whose end was not written when its worker was lost is run again.
"""

import asyncio
import dataclasses
import logging
import sys
import time
from typing import Any

from chancy import Chancy, Job, Queue, QueuedJob, Worker
from chancy.plugin import Plugin, PluginScope
from chancy.plugins.pruner import Pruner

from bench.handing_in import in_tasks
from bench.peers.program import DATABASE_URL, main

QUEUE = "bench"
DAY = 24 * 60 * 60
# The worker writes the ends of jobs in batches, by default once a second, which would be the idle latency.
WRITE_SECONDS = 0.01
JOB = Job(func="bench.peers.chancy_peer.echo", queue=QUEUE, kwargs={"message": "x"})


async def echo(*, message: str) -> str:
    return message


class KeepResult(Plugin):
    """Write what a job returned into its metadata, together with its end: Chancy itself keeps no results."""

    @staticmethod
    def get_identifier() -> str:
        return "bench.result"

    @classmethod
    def get_scope(cls) -> PluginScope:
        return PluginScope.WORKER

    async def run(self, worker: Worker, chancy: Chancy) -> None:
        """Return at once: this plugin acts only when a job ends."""

    async def on_job_completed(
        self, *, worker: Worker, job: QueuedJob, exc: Exception | None = None, result: Any = None
    ) -> QueuedJob:
        return dataclasses.replace(job, meta={**job.meta, "result": result})


def make_app() -> Chancy:
    log = logging.getLogger("bench.chancy")
    log.setLevel(logging.WARNING)
    # The default deletes jobs a minute after their end, but the results are counted.
    plugins = [KeepResult(), Pruner(Pruner.Rules.Age() > DAY)]
    return Chancy(DATABASE_URL, plugins=plugins, min_connection_pool_size=4, max_connection_pool_size=16, log=log)


class ChancyPeer:
    def prepare(self) -> None:
        async def make() -> None:
            async with make_app() as app:
                await app.migrate()
                # Eager polling fills free slots at once; without it a full queue waits for the next poll, 5 s.
                await app.declare(Queue(QUEUE, executor=Chancy.Executor.Async, eager_polling=True))

        asyncio.run(make())

    def worker(self) -> None:
        async def run() -> None:
            async with make_app() as app:
                worker = Worker(app)
                worker.send_outgoing_interval = WRITE_SECONDS
                async with worker:
                    await worker.wait_for_shutdown()

        asyncio.run(run())

    def produce(self, count: int, callers: int, *, bulk: bool) -> None:
        async def run() -> None:
            async with make_app() as app:
                if bulk:
                    async for _ in app.push_many([JOB] * count):
                        pass
                else:
                    await in_tasks(lambda: app.push(JOB), count, callers)

        asyncio.run(run())

    def latency(self, count: int) -> list[float]:
        async def run() -> list[float]:
            seconds = []
            async with make_app() as app:
                for _ in range(count):
                    began = time.monotonic()
                    await app.wait_for_job(await app.push(JOB), interval=0.001, timeout=30)
                    seconds.append(time.monotonic() - began)
            return seconds

        return asyncio.run(run())


if __name__ == "__main__":
    sys.modules["bench.peers.chancy_peer"] = sys.modules["__main__"]
    main(ChancyPeer())
