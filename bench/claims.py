"""How long a claim takes when few wait and when many do: `make bench-claims`.

A PostgreSQL of its own with one ledger for each depth; in turns, 16 workers claim from each at the same time, through
the desk that answers claims over HTTP. Prints a table, and with --json FILE writes the figures.
"""

import argparse
import asyncio
import json
import statistics
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.services.postgres import start_postgres

from common.retry import RetryPolicy
from orchestrator.database.migrate import upgrade
from orchestrator.database.pool import Pool, open_pool
from orchestrator.jobs import queries
from orchestrator.jobs.claims import Claims
from orchestrator.jobs.desk import Desk
from orchestrator.jobs.model import Wanted
from orchestrator.jobs.rules import worker_of
from orchestrator.leases.credits import Credits
from orchestrator.leases.giving import Giving
from orchestrator.leases.service import LeaseService
from orchestrator.tasks.model import Task

CLAIMERS = 16
WORKERS = [f"worker-{number}" for number in range(CLAIMERS)]
LEASE = timedelta(minutes=10)
GOAL = 1.5

FILL = """
    INSERT INTO task (task_id, request_id, trace_id, work_type, agent_type, parameters, hints, content_digest, priority,
                      idempotent, max_attempts, status, precedence)
    SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'type_' || n % 5, 'http', '{"n": 1}', '{}', '', 3,
           false, 3, 'pending', (random() * 10)::int
      FROM generate_series(1, $1::int) AS n
"""
TABLES = ("task", "attempt", "event")


class Backlog:
    """A ledger with so many waiting jobs, and the desk that gives them out."""

    def __init__(self, pool: Pool, claims: Claims) -> None:
        self._pool = pool
        self.desk = Desk(claims.give, self._never)
        self.taken: list[str] = []

    async def fill(self, depth: int) -> None:
        """Have exactly so many jobs wait."""
        async with self._pool.acquire() as db:
            waiting = await db.fetchval("SELECT count(*) FROM task WHERE status = 'pending'")
            await db.execute(FILL, depth - waiting, timeout=600)

    async def settle(self) -> None:
        async with self._pool.acquire() as db:
            for table in TABLES:
                await db.execute(f"VACUUM ANALYZE {table}", timeout=600)
            await db.execute("CHECKPOINT")

    async def measure(self, claims: int) -> list[float]:
        """Return how long each claim took, in milliseconds, with 16 workers at the same time."""
        times: list[float] = []

        async def work(name: str) -> None:
            for _ in range(claims // CLAIMERS):
                began = time.perf_counter()
                wanted = Wanted(worker_of(name), uuid4(), repeatable=True, lease=LEASE)
                task = await self.desk.claim(wanted, wait=timedelta(0))
                times.append((time.perf_counter() - began) * 1000)
                assert task is not None
                self.taken.append(str(task.task_id))

        await asyncio.gather(*map(work, WORKERS))
        return times

    async def _never(self, wanted: Wanted, task: Task) -> None:
        raise AssertionError("nobody leaves before the answer")


async def open_backlog(stack: AsyncExitStack, url: str, depth: int) -> Backlog:
    await upgrade(url)
    pool = await stack.enter_async_context(open_pool(url, connections=5))
    leases = LeaseService(pool, lease=LEASE, policy=RetryPolicy())
    async with pool.acquire() as db:
        since = await queries.now(db)
        for name in WORKERS:
            await queries.seen(db, worker_of(name), pool="http", types=[], labels={}, has_said_labels=False)
    giving = Giving(pool, Credits(), lease=LEASE)
    backlog = Backlog(pool, Claims(pool, leases, giving, since=since, grace=LEASE))
    await backlog.fill(depth)
    await backlog.settle()
    serving = asyncio.create_task(_serve(backlog.desk))
    stack.callback(serving.cancel)
    return backlog


async def _serve(desk: Desk) -> None:
    while True:
        await desk.run_once()


async def run(depths: list[int], rounds: int, claims: int) -> dict[str, Any]:
    """Return the medians of all rounds for each depth, and their ratio."""
    async with AsyncExitStack() as stack:
        postgres = await start_postgres(durable=True)
        stack.callback(postgres.stop)
        backlogs = {}
        for depth in depths:
            backlogs[depth] = await open_backlog(stack, await postgres.create_database(), depth)
        medians: dict[int, list[float]] = {depth: [] for depth in depths}
        for number in range(rounds + 1):
            for depth, backlog in backlogs.items():
                await backlog.fill(depth)
                times = await backlog.measure(claims)
                if number:  # the first round warms up
                    medians[depth].append(statistics.median(times))
        doubled = sum(len(backlog.taken) - len(set(backlog.taken)) for backlog in backlogs.values())
    middle = {depth: statistics.median(found) for depth, found in medians.items()}
    return {
        "claimers": CLAIMERS,
        "rounds": rounds,
        "claims_a_round": claims,
        "median_ms": {str(depth): round(found, 3) for depth, found in middle.items()},
        "range_ms": {str(depth): [round(min(found), 3), round(max(found), 3)] for depth, found in medians.items()},
        "ratio": round(middle[depths[-1]] / middle[depths[0]], 3),
        "goal": GOAL,
        "doubled": doubled,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", default="1000,1000000", help="how many jobs wait, the smallest first")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--claims", type=int, default=480, help="how many claims a round")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    figures = asyncio.run(run([int(depth) for depth in given.depths.split(",")], given.rounds, given.claims))
    print(json.dumps(figures, indent=2))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    if figures["ratio"] > GOAL or figures["doubled"]:
        raise SystemExit(f"bench-claims: missed: the ratio must be at most {GOAL}, and no job doubled")


if __name__ == "__main__":
    main()
