"""Taskiq over aio-pika, acknowledged when the result is saved; results in PostgreSQL by asyncpg."""

import asyncio
import sys
import time

from taskiq.cli.worker.args import WorkerArgs
from taskiq.cli.worker.run import run_worker
from taskiq_aio_pika import AioPikaBroker, Queue
from taskiq_pg.asyncpg import AsyncpgResultBackend

from bench.handing_in import in_tasks
from bench.peers.program import AMQP_URL, DATABASE_URL, main

broker = AioPikaBroker(AMQP_URL, qos=100, task_queues=[Queue(name="bench-taskiq", declare=True)]).with_result_backend(
    AsyncpgResultBackend(dsn=DATABASE_URL)
)


@broker.task(task_name="bench.echo")
async def echo(message: str) -> str:
    return message


class TaskiqPeer:
    def prepare(self) -> None:
        async def make() -> None:
            await broker.startup()
            await broker.shutdown()

        asyncio.run(make())

    def worker(self) -> None:
        raise SystemExit(
            run_worker(WorkerArgs(broker="bench.peers.taskiq_peer:broker", modules=[], workers=1, log_level="WARNING"))
        )

    def produce(self, count: int, callers: int, *, bulk: bool) -> None:
        async def run() -> None:
            await broker.startup()
            await in_tasks(lambda: echo.kiq("x"), count, callers)
            await broker.shutdown()

        asyncio.run(run())

    def latency(self, count: int) -> list[float]:
        async def run() -> list[float]:
            await broker.startup()
            seconds = []
            for _ in range(count):
                began = time.monotonic()
                task = await echo.kiq("x")
                await task.wait_result(check_interval=0.001, timeout=30)
                seconds.append(time.monotonic() - began)
            await broker.shutdown()
            return seconds

        return asyncio.run(run())


if __name__ == "__main__":
    sys.modules["bench.peers.taskiq_peer"] = sys.modules["__main__"]
    main(TaskiqPeer())
