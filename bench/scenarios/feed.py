"""Events at a steady rate, and readers that follow them over WebSockets: how late they see what happened."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil

from bench.chiffon_server import TOKEN, URL, Server, chiffon
from bench.compare import place
from bench.handing_in import shares
from bench.programs import OWN_PYTHON, Place, ProgramFailed, busy_seconds, next_line, running
from bench.readers import trace_of
from bench.report import Reading, percentile
from bench.services import Services
from orchestrator.database.pool import open_pool, transaction
from orchestrator.events.model import Kind, NewEvent
from orchestrator.events.queries import append

STEP_SECONDS = 0.02
PROCESSES = 2
PATIENCE = 60
# A prime: every trace has its turn, and no process of readers has none for long.
STRIDE = 7919
# Limits that keep one token from doing what is done here on purpose.
SETTINGS = {"CHIFFON_TOKEN_WEBSOCKETS": "100000", "CHIFFON_TOKEN_REQUESTS_PER_SECOND": "100000"}


@dataclass(frozen=True, slots=True)
class Audience:
    """Who follows: so many readers one stream, or each a trace of its own; `stuck` of them stop to read."""

    readers: int
    rate: int
    seconds: int
    own_traces: bool = False
    stuck: int = 0

    @property
    def name(self) -> str:
        what = "a trace each" if self.own_traces else "one stream"
        stuck = f", {self.stuck} stuck" if self.stuck else ""
        return f"{self.readers:,} readers of {what}, {self.rate:,} events/s{stuck}"

    @property
    def traces(self) -> list[UUID]:
        return [trace_of(number) for number in range(self.readers if self.own_traces else 1)]


async def follow(services: Services, folder: Path, table: str, audience: Audience) -> list[Reading]:
    """Return how late the readers were, how much they saw, and what it cost the orchestrator."""
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(place(services, folder, "feed"))
        server = await stack.enter_async_context(chiffon(own, agents=0, settings=SETTINGS))
        readers = await _readers(stack, own, server, audience)
        orchestrator = server.part("server")
        memory, busy = orchestrator.memory_info().rss, busy_seconds(orchestrator)
        loop = asyncio.get_running_loop()
        began = loop.time()
        at_half_time = asyncio.create_task(_memory(orchestrator, after=audience.seconds / 2))
        written = await _write(own.database_url, audience)
        wrote = loop.time() - began
        cpu = 100 * (busy_seconds(orchestrator) - busy) / wrote
        later = (orchestrator.memory_info().rss - await at_half_time) / 2**20
        said = await asyncio.gather(*(next_line(reader, see=own.folder) for reader in readers))
        grown = (orchestrator.memory_info().rss - memory) / 2**20
    late = [value for one in said for value in one["late_ms"]]
    if not late:
        raise ProgramFailed(f"nobody saw an event; see {own.folder}")
    expected = written if audience.own_traces else written * sum(one["timed"] for one in said)
    sizes = [size for one in said for size in one["bytes"]]
    figures = {
        "p50": (percentile(late, 0.5), "ms"),
        "p99": (percentile(late, 0.99), "ms"),
        "written": (written / wrote, "events/s"),
        "seen by the readers that are timed": (100 * len(late) / expected, "%"),
        "deliveries": (written * (1 if audience.own_traces else audience.readers) / wrote, "a second"),
        **({} if audience.own_traces else {"readers that got all of it": (sizes.count(max(sizes)), "")}),
        "readers that were dropped": (sum(one["closed"] for one in said), ""),
        "the orchestrator's processor": (cpu, "% of a core"),
        "the orchestrator's memory grew by": (grown, "MB"),
        "in the second half by": (later, "MB"),
    }
    return [Reading(table, f"{audience.name}: {what}", value, unit) for what, (value, unit) in figures.items()]


async def _memory(process: psutil.Process, *, after: float) -> int:
    await asyncio.sleep(after)
    rss: int = process.memory_info().rss
    return rss


async def _readers(
    stack: AsyncExitStack, own: Place, server: Server, audience: Audience
) -> Sequence[asyncio.subprocess.Process]:
    """Start the readers in a few processes; returns when all are connected."""
    environment = {**own.environment(), URL: server.url, TOKEN: server.token}
    log = own.folder / "readers.log"
    processes = []
    first = 0
    for share in shares(audience.readers, min(PROCESSES, audience.readers)):
        flags = ["--count", share, "--first", first, "--longest", audience.seconds + PATIENCE]
        flags += ["--own-traces"] if audience.own_traces else []
        flags += ["--stuck", audience.stuck] if first == 0 else []
        command: list[str | Path] = [OWN_PYTHON, "-m", "bench.readers", *map(str, flags)]
        processes.append(await stack.enter_async_context(running(command, environment, log, piped=True)))
        first += share
    for process in processes:
        await next_line(process, see=log)
    return processes


async def _write(database_url: str, audience: Audience) -> int:
    """Write events at a steady rate, in small transactions as the orchestrator does; return how many."""
    loop = asyncio.get_running_loop()
    traces = audience.traces
    written = 0
    async with open_pool(database_url, connections=1) as pool:
        began = loop.time()
        while (passed := loop.time() - began) < audience.seconds:
            due = int(audience.rate * passed) - written
            events = [
                NewEvent(Kind.TASK_PROGRESS, "bench", {"message": "x"}, trace_id=traces[number * STRIDE % len(traces)])
                for number in range(written, written + due)
            ]
            async with transaction(pool) as db:
                await append(db, *events)
            written += due
            await asyncio.sleep(STEP_SECONDS)
    return written
