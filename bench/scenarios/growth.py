"""Growth: how fast work is done and claimed while few tasks wait, and while many do or many have ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg

from bench.chiffon_server import chiffon
from bench.claims import Backlog, open_backlog
from bench.compare import place
from bench.counting import until
from bench.filling import Ledger, begin_ledger
from bench.programs import Place
from bench.report import Reading, percentile
from bench.scenarios.feed import Audience, follow
from bench.services import Services
from bench.sizes import Sizes

RATE = "5. Growth: tasks done while so many wait"
CLAIMS = "5. Growth: a claim over HTTP while so many wait"
FEED = "5. Growth: events on their way to one WebSocket"
CLAIMS_A_ROUND = 480

# Few rows whatever waits, so that counting costs little.
DONE = "SELECT count(*) FROM event WHERE kind = 'task.completed'"


async def measure(services: Services, sizes: Sizes, folder: Path) -> AsyncIterator[Reading]:
    depths = (1_000, sizes.some_waiting, sizes.many_waiting)
    async for reading in _rates(services, depths, sizes, folder):
        yield reading
    async for reading in _claims(services, depths, sizes):
        yield reading
    audience = Audience(readers=1, rate=sizes.feed_rate, seconds=sizes.seconds)
    for _ in range(sizes.rounds):
        for reading in await follow(services, folder, FEED, audience):
            yield reading


async def _rates(services: Services, depths: tuple[int, ...], sizes: Sizes, folder: Path) -> AsyncIterator[Reading]:
    async with AsyncExitStack() as stack:
        filled: dict[str, tuple[Place, asyncpg.Connection[Any], Ledger, int]] = {}
        for name, depth, finished in (
            *((f"{depth:,} waiting", depth, 0) for depth in depths),
            (f"1,000 waiting, {sizes.finished:,} ended", 1_000, sizes.finished),
        ):
            own = await stack.enter_async_context(place(services, folder, "growth"))
            db = await asyncpg.connect(own.database_url)
            stack.push_async_callback(db.close)
            ledger = await begin_ledger(own, db)
            await ledger.finish(finished)
            filled[name] = (own, db, ledger, depth)
        for _ in range(sizes.rounds):
            first = None
            for name, (own, db, ledger, depth) in filled.items():
                await ledger.wait(depth + 2 * sizes.tasks)
                rate = await _rate(own, db, sizes.tasks)
                first = first or rate
                yield Reading(RATE, name, rate, "tasks/s")
                yield Reading(RATE, f"{name}, against 1,000", rate / first, "times")


async def _rate(own: Place, db: "asyncpg.Connection[Any]", tasks: int) -> float:
    """Let Chiffon work off a backlog, and return how many tasks a second it does after it has begun."""
    loop = asyncio.get_running_loop()
    async with chiffon(own):
        done = await db.fetchval(DONE)
        began = loop.time()
        return tasks / (await until(db, DONE, done + tasks) - began)


async def _claims(services: Services, depths: tuple[int, ...], sizes: Sizes) -> AsyncIterator[Reading]:
    async with AsyncExitStack() as stack:
        backlogs: dict[int, Backlog] = {}
        for depth in depths:
            backlogs[depth] = await open_backlog(stack, await services.database(), depth)
        for _ in range(sizes.rounds):
            first = None
            for depth, backlog in backlogs.items():
                await backlog.fill(depth)
                middle = percentile(await backlog.measure(min(CLAIMS_A_ROUND, sizes.tasks)), 0.5)
                first = first or middle
                yield Reading(CLAIMS, f"{depth:,} waiting, p50", middle, "ms")
                yield Reading(CLAIMS, f"{depth:,} waiting, against 1,000", middle / first, "times")
