"""Several orchestrators work on the same keys at once: order and limits hold at every moment, and nothing strands."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from common.lifecycle import Status
from common.messages import ResultStatus
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool, open_pool
from orchestrator.keys.service import KeyService
from orchestrator.leases.service import LeaseService
from orchestrator.tasks.model import NewTask
from orchestrator.tasks.service import TaskHasEnded, TaskService
from tests.factories import make_new_task, make_result
from tests.fuzz.bounds import many
from tests.integration.ledger import lease_to

AGEING = timedelta(minutes=10)
ROUNDS = many(4)
ORDERING = ["web-1", "web-2", None]
LIMITS = {"pulls": 2, "builds": 3, None: None}

WAITING = "SELECT task_id FROM task WHERE status = 'pending' AND admitted"
UNFINISHED = "SELECT task_id FROM task WHERE status IN ('pending', 'running')"
LOSE_LEASE = "UPDATE task SET lease_expires_at = now() - interval '1 second' WHERE task_id = $1 AND status = 'running'"
LOSE_REPORT = "UPDATE stopping SET until = now() WHERE task_id = $1"
BEYOND_LIMITS = """
    SELECT concurrency_key
      FROM (SELECT concurrency_key FROM task WHERE admitted AND status IN ('pending', 'running')
             UNION ALL
            SELECT concurrency_key FROM stopping) AS used
      JOIN concurrency_limit USING (concurrency_key)
     GROUP BY concurrency_key, at_most HAVING count(*) > at_most
"""
OUT_OF_ORDER = """
    SELECT late.task_id
      FROM task AS late
      JOIN task AS early ON early.ordering_key = late.ordering_key AND early.dispatch_no < late.dispatch_no
     WHERE late.attempt > 0 AND early.status IN ('pending', 'running')
"""


@dataclass
class Orchestrator:
    pool: Pool
    tasks: TaskService
    leases: LeaseService
    keys: KeyService


@dataclass
class Watched:
    """What runs at this moment, as the agents see it: noted after a grant and forgotten before the end is told."""

    known: dict[UUID, NewTask] = field(default_factory=dict)
    running: Counter[tuple[str, str]] = field(default_factory=Counter)
    first_starts: dict[str, list[UUID]] = field(default_factory=lambda: defaultdict(list))
    violations: list[str] = field(default_factory=list)

    def begins(self, task_id: UUID, attempt: int) -> None:
        task = self.known[task_id]
        for place, most in self._places(task):
            self.running[place] += 1
            if self.running[place] > most:
                self.violations.append(f"{self.running[place]} of {place} run, {most} may")
        if task.ordering_key is not None and attempt == 1:
            self.first_starts[task.ordering_key].append(task_id)

    def ends(self, task_id: UUID) -> None:
        for place, _ in self._places(self.known[task_id]):
            self.running[place] -= 1

    def _places(self, task: NewTask) -> list[tuple[tuple[str, str], int]]:
        places = []
        if task.ordering_key is not None:
            places.append((("ordering", task.ordering_key), 1))
        if task.concurrency_key is not None and task.concurrency_limit is not None:
            places.append((("concurrency", task.concurrency_key), task.concurrency_limit))
        return places


@pytest.fixture
async def orchestrators(ledger_url: str) -> AsyncIterator[list[Orchestrator]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(3):
            pool = await stack.enter_async_context(open_pool(ledger_url, connections=5))
            leases = LeaseService(pool, lease=timedelta(seconds=30), policy=RetryPolicy(base=timedelta(0)))
            made.append(Orchestrator(pool, TaskService(pool, ageing=AGEING), leases, KeyService(pool)))
        yield made


def new_task(dice: random.Random) -> NewTask:
    concurrency_key = dice.choice(list(LIMITS))
    return make_new_task(
        priority=dice.randint(1, 5),
        max_attempts=dice.choice([1, 3]),
        ordering_key=dice.choice(ORDERING),
        concurrency_key=concurrency_key,
        concurrency_limit=LIMITS[concurrency_key],
        expires_after=dice.choice([None, None, None, timedelta(milliseconds=400)]),
    )


async def dispatch(orchestrator: Orchestrator, watched: Watched, dice: random.Random, *, rounds: int) -> None:
    for _ in range(rounds):
        batch = [new_task(dice) for _ in range(dice.randint(1, 8))]
        watched.known |= {task.task_id: task for task in batch}
        await orchestrator.tasks.dispatch(batch, by="caller")


async def work(
    orchestrators: list[Orchestrator], watched: Watched, dice: random.Random, dispatched: asyncio.Event
) -> None:
    """Be an agent: get any tasks that wait, run them for a moment, and end them in any way."""
    agent_id = uuid4()
    while True:
        here, there = dice.choice(orchestrators), dice.choice(orchestrators)
        async with here.pool.acquire() as db:
            waiting = await db.fetch(WAITING)
            left = await db.fetchval(f"SELECT count(*) FROM ({UNFINISHED}) AS unfinished")
        if not left and dispatched.is_set():
            return
        chosen = dice.sample(waiting, min(len(waiting), dice.randint(1, 3)))
        if not chosen:
            await asyncio.sleep(0.002)
            continue
        granted = await lease_to(here.pool, *(row["task_id"] for row in chosen), agent_id=agent_id)
        for grant in granted:
            watched.begins(grant.task.task_id, grant.attempt)
        await asyncio.sleep(dice.random() * 0.005)
        for grant in granted:
            await end(there, watched, dice, agent_id, grant.task.task_id, grant.attempt)


async def end(
    orchestrator: Orchestrator,
    watched: Watched,
    dice: random.Random,
    agent_id: UUID,
    task_id: UUID,
    attempt: int,
) -> None:
    kind = dice.randrange(6)
    if kind == 0:
        await cancel(orchestrator, task_id)
        await asyncio.sleep(dice.random() * 0.01)
    watched.ends(task_id)
    if kind == 1:
        async with orchestrator.pool.acquire() as db:
            await db.execute(LOSE_LEASE, task_id)
            await db.execute(LOSE_REPORT, task_id)
        await orchestrator.leases.reap(limit=10)
        return
    status = {0: ResultStatus.CANCELLED, 2: ResultStatus.FAILED, 3: ResultStatus.FAILED}.get(
        kind, ResultStatus.COMPLETED
    )
    result = make_result(task_id, agent_id, status=status, retryable=kind == 2, attempt=attempt, output_bytes={})
    await orchestrator.leases.accept([result, result])


async def cancel(orchestrator: Orchestrator, task_id: UUID) -> None:
    with suppress(TaskHasEnded):
        await orchestrator.tasks.cancel(task_id, by="caller")


async def disturb(orchestrator: Orchestrator, watched: Watched, dice: random.Random, done: asyncio.Event) -> None:
    """Cancel what waits, expire and reap what must be, and look into the ledger all the while."""
    while not done.is_set():
        async with orchestrator.pool.acquire() as db:
            watched.violations += [f"beyond its limit: {row[0]}" for row in await db.fetch(BEYOND_LIMITS)]
            watched.violations += [f"out of order: {row[0]}" for row in await db.fetch(OUT_OF_ORDER)]
            waiting = await db.fetch("SELECT task_id FROM task WHERE status = 'pending' AND attempt = 0")
        if waiting and dice.random() < 0.5:
            await cancel(orchestrator, dice.choice(waiting)["task_id"])
        await orchestrator.tasks.expire(limit=20)
        await orchestrator.leases.reap(limit=20)
        await orchestrator.keys.free_overdue(limit=20)
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_order_and_limits_hold_and_everything_ends(orchestrators: list[Orchestrator], seed: int) -> None:
    watched, dispatched, done = Watched(), asyncio.Event(), asyncio.Event()
    dice = random.Random(seed)

    async with asyncio.timeout(15 * ROUNDS), asyncio.TaskGroup() as group:
        workers = [
            group.create_task(work(orchestrators, watched, random.Random(dice.random()), dispatched)) for _ in range(8)
        ]
        for orchestrator in orchestrators:
            group.create_task(disturb(orchestrator, watched, random.Random(dice.random()), done))
        await asyncio.gather(
            *(dispatch(one, watched, random.Random(dice.random()), rounds=ROUNDS) for one in orchestrators)
        )
        dispatched.set()
        await asyncio.wait(workers)
        done.set()

    assert not watched.violations
    async with orchestrators[0].pool.acquire() as db:
        ended = await db.fetch("SELECT task_id, status, ordering_key FROM task ORDER BY dispatch_no")
    assert {row["task_id"] for row in ended} == set(watched.known)
    assert {Status(row["status"]).is_final for row in ended} == {True}
    for key, started in watched.first_starts.items():
        in_order = [row["task_id"] for row in ended if row["ordering_key"] == key]
        assert started == [task_id for task_id in in_order if task_id in set(started)]
    assert {"completed", "failed", "cancelled"} == {row["status"] for row in ended}
