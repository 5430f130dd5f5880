"""DBOS Transact: PostgreSQL is the queue and keeps each workflow with its input and its result; no broker.

A workflow's end and its result are one commit. A workflow of a process that was lost runs again when that process
starts again.
"""

import sys
import threading
import time

import sqlalchemy
from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions

from bench.peers.program import DATABASE_URL, in_threads, main

BULK = 1000
QUEUE = "bench"
# DBOS polls its queue, by default once a second, which would be the idle latency.
POLL_SECONDS = 0.01
CONNECTIONS = 16
# As many as the Chiffon of the comparison has.
SLOTS = 256
OPTIONS: EnqueueOptions = {"workflow_name": "bench.echo", "queue_name": QUEUE}


@DBOS.workflow(name="bench.echo")
async def echo(message: str) -> str:
    return message


def launch() -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": DATABASE_URL,
        "sys_db_pool_size": CONNECTIONS,
        "log_level": "WARNING",
        "max_executor_threads": CONNECTIONS,
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=POLL_SECONDS, worker_concurrency=SLOTS)


class DbosPeer:
    def prepare(self) -> None:
        launch()
        DBOS.destroy()

    def worker(self) -> None:
        launch()
        threading.Event().wait()

    def produce(self, count: int, callers: int, *, bulk: bool) -> None:
        client = self._client(callers)
        if bulk:
            # DBOS has no call for many workflows; the nearest is to enqueue many in one transaction of the caller.
            engine = sqlalchemy.create_engine(DATABASE_URL.replace("postgresql://", "postgresql+psycopg://", 1))
            for begin in range(0, count, BULK):
                with engine.begin() as connection:
                    for _ in range(min(BULK, count - begin)):
                        client.enqueue_in_transaction(connection, OPTIONS, "x")
            engine.dispose()
        else:
            in_threads(lambda: client.enqueue(OPTIONS, "x"), count, callers)
        client.destroy()

    def latency(self, count: int) -> list[float]:
        client = self._client(1)
        seconds = []
        for _ in range(count):
            began = time.monotonic()
            client.enqueue(OPTIONS, "x").get_result(polling_interval_sec=0.001)
            seconds.append(time.monotonic() - began)
        client.destroy()
        return seconds

    def _client(self, callers: int) -> DBOSClient:
        return DBOSClient(system_database_url=DATABASE_URL, system_database_pool_size=min(callers, CONNECTIONS))


if __name__ == "__main__":
    sys.modules["bench.peers.dbos_peer"] = sys.modules["__main__"]
    main(DbosPeer())
