"""What the machine could do at most: messages as bytes over a socket, and rows in batches, with nothing around them."""

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

import asyncpg

from bench.raw_amqp import RawChannel
from bench.report import Reading
from bench.services import Services
from bench.sizes import Sizes

TABLE = "4. Physical limits"
IN_AND_OUT = "one message in, one out"
QUEUE = "bench.limits"
BODY = b'{"task_id":"00000000-0000-0000-0000-000000000000","work_type":"echo","parameters":{"message":"x"}}' * 4
ROWS_AT_ONCE = 500
CREATE = """
    CREATE TABLE bench_row (
        task_id uuid PRIMARY KEY, work_type text NOT NULL, parameters jsonb NOT NULL, priority smallint NOT NULL,
        status text NOT NULL, created_at timestamptz NOT NULL DEFAULT now()
    )
"""
INSERT = """
    INSERT INTO bench_row (task_id, work_type, parameters, priority, status)
    SELECT id, 'echo', '{"message": "x"}', 3, 'pending' FROM unnest($1::uuid[]) AS new (id)
"""


async def measure(services: Services, sizes: Sizes) -> list[Reading]:
    publish, consume, both = await asyncio.to_thread(_amqp, services.vhost(), sizes.tasks)
    inserted = await _inserts(services, 10 * sizes.tasks)
    return [
        Reading(TABLE, "publish and confirm", publish, "messages/s"),
        Reading(TABLE, "consume and ack", consume, "messages/s"),
        Reading(TABLE, IN_AND_OUT, both, "messages/s"),
        Reading(TABLE, f"insert, {ROWS_AT_ONCE} at once", inserted, "rows/s"),
    ]


def _amqp(url: str, count: int) -> tuple[float, float, float]:
    """Return messages a second: published and confirmed, consumed and acknowledged, and the one after the other."""
    with RawChannel(url) as channel:
        channel.declare(QUEUE)
        publishing = _seconds(lambda: channel.publish(QUEUE, BODY, count))
        consuming = _seconds(lambda: channel.consume(QUEUE, count))
    return count / publishing, count / consuming, count / (publishing + consuming)


async def _inserts(services: Services, count: int) -> float:
    """Return rows a second that are inserted and committed."""
    url = await services.database()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(CREATE)
        ids = [uuid4() for _ in range(count)]
        began = time.monotonic()
        for begin in range(0, count, ROWS_AT_ONCE):
            await connection.execute(INSERT, ids[begin : begin + ROWS_AT_ONCE])
        return count / (time.monotonic() - began)
    finally:
        await connection.close()
        await services.postgres.drop_database(url)


def _seconds(work: Callable[[], None]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
