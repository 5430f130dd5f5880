"""Dramatiq: confirmed publishes, persistent messages; the actor stores its result in PostgreSQL itself."""

import sys
import threading

import dramatiq
import psycopg
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.cli import main as run_workers
from dramatiq.cli import make_argument_parser
from dramatiq.middleware import CurrentMessage

from bench.peers.own_results import make_table, timed
from bench.peers.program import AMQP_URL, DATABASE_URL, in_threads, main

BULK = 1000

broker = RabbitmqBroker(url=AMQP_URL, confirm_delivery=True, max_priority=5)
broker.add_middleware(CurrentMessage())
dramatiq.set_broker(broker)
local = threading.local()


@dramatiq.actor(queue_name="bench-dramatiq", max_retries=0)
def echo(message: str) -> None:
    connection = getattr(local, "connection", None)
    if connection is None:
        connection = local.connection = psycopg.connect(DATABASE_URL, autocommit=True)
    current = CurrentMessage.get_current_message()
    assert current is not None
    connection.execute("INSERT INTO stored_result (task_id, result) VALUES (%s, %s)", (current.message_id, message))


class DramatiqPeer:
    def prepare(self) -> None:
        make_table()

    def worker(self) -> None:
        arguments = ["bench.peers.dramatiq_peer", "--processes", "1", "--threads", "8"]
        raise SystemExit(run_workers(make_argument_parser().parse_args(arguments)))

    def produce(self, count: int, callers: int, *, bulk: bool) -> None:
        if bulk:
            for begin in range(0, count, BULK):
                dramatiq.group([echo.message("x") for _ in range(min(BULK, count - begin))]).run()
        else:
            in_threads(lambda: echo.send("x"), count, callers)

    def latency(self, count: int) -> list[float]:
        return timed(lambda: echo.send("x").message_id, count)


if __name__ == "__main__":
    sys.modules["bench.peers.dramatiq_peer"] = sys.modules["__main__"]
    main(DramatiqPeer())
