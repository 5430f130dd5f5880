"""A table of results, for peers that keep none in PostgreSQL: their task writes its result there itself."""

import time
from collections.abc import Callable

import psycopg

from bench.peers.program import DATABASE_URL

TABLE = """
    CREATE TABLE IF NOT EXISTS stored_result (
        task_id text PRIMARY KEY, result text NOT NULL, at timestamptz NOT NULL DEFAULT now()
    )
"""
IS_STORED = "SELECT count(*) FROM stored_result WHERE task_id = %s"


def make_table() -> None:
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        connection.execute(TABLE)


def timed(hand_in: Callable[[], str], count: int) -> list[float]:
    """Hand in so many tasks, one after another, and return the seconds until each one's result was in the table."""
    seconds = []
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        for _ in range(count):
            began = time.monotonic()
            task_id = hand_in()
            while connection.execute(IS_STORED, (task_id,)).fetchone() == (0,):
                time.sleep(0.001)
            seconds.append(time.monotonic() - began)
    return seconds
