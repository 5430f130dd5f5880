"""Celery: late acks, publisher confirms, persistent messages; results in PostgreSQL, or over its volatile RPC."""

import os
import sys
import time
from typing import Any

from celery import Celery, group

from bench.peers.program import AMQP_URL, DATABASE_URL, in_threads, main

RPC = os.environ.get("BENCH_CELERY_BACKEND") == "rpc"
BULK = 1000

app = Celery(
    "bench.peers.celery_peer",
    broker=AMQP_URL,
    backend="rpc://" if RPC else "db+" + DATABASE_URL.replace("postgresql://", "postgresql+psycopg://", 1),
)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=False,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_prefetch_multiplier=4,
    task_default_queue="bench-celery-rpc" if RPC else "bench-celery",
)


@app.task(name="bench.echo")
def echo(message: str) -> str:
    return message


class CeleryPeer:
    def prepare(self) -> None:
        """The first result makes the tables."""

    def worker(self) -> None:
        app.worker_main(
            [
                "worker",
                "--pool=threads",
                "--concurrency=8",
                "--loglevel=WARNING",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
            ]
        )

    def produce(self, count: int, callers: int, *, bulk: bool) -> None:
        results: list[Any] = []
        if bulk:
            sizes = [min(BULK, count - begin) for begin in range(0, count, BULK)]
            results = [group(echo.s("x") for _ in range(size)).apply_async() for size in sizes]
        else:
            in_threads(lambda: results.append(echo.delay("x")), count, callers)
        if RPC:
            for result in results:
                result.get(timeout=120, interval=0.001)

    def latency(self, count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            began = time.monotonic()
            echo.delay("x").get(timeout=30, interval=0.001)
            seconds.append(time.monotonic() - began)
        return seconds


if __name__ == "__main__":
    sys.modules["bench.peers.celery_peer"] = sys.modules["__main__"]
    main(CeleryPeer())
