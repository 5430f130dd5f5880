"""Fleet: thousands of agents that beat and renew, what they cost, and how soon it is seen that some are gone."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg

from bench.chiffon_server import chiffon
from bench.compare import place
from bench.counting import until
from bench.filling import begin_ledger
from bench.handing_in import shares
from bench.programs import OWN_PYTHON, Place, busy_seconds, next_line, running
from bench.report import Reading, percentile
from bench.services import Services
from bench.simulated_agents import agent_of
from bench.sizes import Sizes

TABLE = "6. Fleet"
PROCESSES = 2
# Long enough for everything to start; the first renewal makes it the usual one.
FIRST_LEASE = timedelta(hours=1)
MISSED_BEATS = 3
# A lease is renewed every second beat. With a beat of 10 seconds these are what is set by default.
LEASE_BEATS = 6

REGISTERED = "SELECT count(*) FROM agent WHERE agent_type = 'simulated'"
OFFLINE = "SELECT count(*) FROM agent WHERE agent_type = 'simulated' AND status = 'offline'"
OLDEST_BEAT = """
    SELECT extract(epoch FROM max(now() - last_heartbeat_at))::float FROM agent WHERE agent_type = 'simulated'
"""
SEEN_AFTER = """
    SELECT extract(epoch FROM max(event.at - agent.last_heartbeat_at))::float
      FROM event JOIN agent USING (agent_id)
     WHERE event.kind = 'agent.status' AND event.data->>'status' = 'offline'
"""


async def measure(services: Services, sizes: Sizes, folder: Path) -> AsyncIterator[Reading]:
    for _ in range(sizes.rounds):
        for agents in (max(1, sizes.agents // 10), sizes.agents):
            for reading in await _one_round(services, folder, agents, sizes):
                yield reading


async def _one_round(services: Services, folder: Path, agents: int, sizes: Sizes) -> list[Reading]:
    gone = max(1, agents // 100)
    settings = {
        "CHIFFON_AGENT_OFFLINE_AFTER_SECONDS": str(MISSED_BEATS * sizes.beat),
        "CHIFFON_LEASE_SECONDS": str(LEASE_BEATS * sizes.beat),
    }
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(place(services, folder, "fleet"))
        db = await asyncpg.connect(own.database_url)
        stack.push_async_callback(db.close)
        ledger = await begin_ledger(own, db)
        tasks = await ledger.run([str(agent_of(number)) for number in range(agents)], lease=FIRST_LEASE)
        server = await stack.enter_async_context(chiffon(own, agents=0, settings=settings))
        orchestrator = server.part("server")
        loop = asyncio.get_running_loop()
        began = await _simulate(stack, own, tasks, sizes, gone=gone)
        together = await until(db, REGISTERED, agents) - began
        # By then everybody has had a turn.
        await asyncio.sleep(sizes.beat)
        busy, from_then = busy_seconds(orchestrator), loop.time()
        lags = await _lags(db, sizes)
        cpu = 100 * (busy_seconds(orchestrator) - busy) / (loop.time() - from_then)
        await until(db, OFFLINE, gone)
        seen_after = await db.fetchval(SEEN_AFTER)
    name = f"{agents:,} agents"
    return [
        Reading(TABLE, f"{name} come at once: until all are registered", together, "s"),
        Reading(TABLE, f"{name}: the orchestrator's processor", cpu, "% of a core"),
        Reading(TABLE, f"{name}: lag of the registry, p50", percentile(lags, 0.5), "s"),
        Reading(TABLE, f"{name}: lag of the registry, highest", max(lags), "s"),
        Reading(TABLE, f"{name}: a silent one is seen, at {MISSED_BEATS * sizes.beat} s, after", seen_after, "s"),
    ]


async def _lags(db: "asyncpg.Connection[Any]", sizes: Sizes) -> list[float]:
    """Look once a second by how much the oldest heartbeat is older than it should be."""
    lags = []
    for _ in range(sizes.seconds):
        lags.append(max(0.0, await db.fetchval(OLDEST_BEAT) - sizes.beat))
        await asyncio.sleep(1)
    return lags


async def _simulate(stack: AsyncExitStack, own: Place, tasks: Sequence[str], sizes: Sizes, *, gone: int) -> float:
    """Start the agents in a few processes; return when the first of them beat."""
    file = own.folder / "tasks.json"
    file.write_text(json.dumps(tasks), encoding="utf-8")
    log = own.folder / "agents.log"
    processes = []
    first = 0
    for count in shares(len(tasks), PROCESSES):
        flags = ["--tasks", file, "--first", first, "--count", count, "--beat", sizes.beat]
        # They fall silent when the lags have been looked at.
        flags += ["--silent", gone, "--silent-after", 2 * sizes.beat + sizes.seconds] if first == 0 else []
        command: list[str | Path] = [OWN_PYTHON, "-m", "bench.simulated_agents", *map(str, flags)]
        processes.append(await stack.enter_async_context(running(command, own.environment(), log, piped=True)))
        first += count
    return float(min([await next_line(process, see=log) for process in processes]))
