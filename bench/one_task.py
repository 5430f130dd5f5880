"""`python -m bench.one_task`: how many functions and files one `echo` task enters, in the orchestrator and its agent.

Each of several tasks is alone. What is shown are medians, less those of as much time without a task: heartbeats and
whatever else goes on all the time are no part of a task.
"""

import asyncio
import json
import signal
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import psutil

from bench.caller import Caller, new_task
from bench.chiffon_server import Server, chiffon
from bench.contenders import CHIFFON
from bench.counting import counted, until
from bench.programs import BENCH, Place
from bench.services import services

WARM_UP, TASKS = 50, 21
# The last of a task is the agent's disk, which is told within half a second that its result is stored.
SPAN_SECONDS = 0.8
PARTS = ("server", "agent")

# What each part counted: {part: {calls, moves, functions: [[file, function, count]]}}.
Walk = Mapping[str, Any]


async def main(folder: Path) -> None:
    async with services() as used:
        place = Place(used.vhost(), await used.database(), folder)
        path = ":".join(map(str, (BENCH / "walked", BENCH.parent, BENCH.parent / "src")))
        async with chiffon(place, settings={"PYTHONPATH": path, "BENCH_WALKED": str(folder)}) as server:
            tasks, idle = await _walks(server, place, folder)
    for name, value in _figures(tasks, idle).items():
        print(f"{name:48} {value:6.0f}")


async def _walks(server: Server, place: Place, folder: Path) -> tuple[list[Walk], list[Walk]]:
    """Return what was counted during each task, and during as many spans of the same length without one."""
    db = await asyncpg.connect(place.database_url)
    parts = {part: server.part(part) for part in PARTS}
    caller = Caller(server.url, server.token)
    await caller.open()

    async def walk(*, with_a_task: bool) -> Walk:
        _signal(parts.values(), signal.SIGUSR1)
        if with_a_task:
            await _one(caller, db)
        await asyncio.sleep(SPAN_SECONDS)
        _signal(parts.values(), signal.SIGUSR2)
        said = {part: await _said(folder / f"{one.pid}.json") for part, one in parts.items()}
        await asyncio.sleep(SPAN_SECONDS)
        return said

    for _ in range(WARM_UP):
        await _one(caller, db)
    tasks = [await walk(with_a_task=True) for _ in range(TASKS)]
    idle = [await walk(with_a_task=False) for _ in range(TASKS)]
    await caller.close()
    await db.close()
    return tasks, idle


async def _one(caller: Caller, db: "asyncpg.Connection[Any]") -> None:
    assert CHIFFON.stored is not None
    before = await counted(db, CHIFFON.stored)
    await caller.post("/api/v1/dispatch", new_task())
    await until(db, CHIFFON.stored, before + 1)


def _signal(processes: Any, number: signal.Signals) -> None:
    for process in processes:
        psutil.Process(process.pid).send_signal(number)


async def _said(path: Path) -> Any:
    """Return what a process wrote, once it is there, and remove it."""
    async with asyncio.timeout(10):
        while (text := await asyncio.to_thread(_taken, path)) is None:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    return json.loads(text)


def _taken(path: Path) -> str | None:
    if not path.exists():
        return None
    text = path.read_text()
    path.unlink()
    return text


def _figures(tasks: list[Walk], idle: list[Walk]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name in (*PARTS, "both"):
        parts = PARTS if name == "both" else (name,)
        busy, quiet = _usual(tasks, parts), _usual(idle, parts)
        entered = [function for function, count in busy.items() if count > quiet[function]]
        figures[f"{name}: functions"] = len(entered)
        figures[f"{name}: files"] = len({file for file, _ in entered})
        for what, key in (("calls", "calls"), ("calls into another file", "moves")):
            during, without = (
                median(sum(walk[part][key] for part in parts) for walk in walks) for walks in (tasks, idle)
            )
            figures[f"{name}: {what}"] = during - without
    return figures


def _usual(walks: list[Walk], parts: Sequence[str]) -> Counter[tuple[str, str]]:
    """Return how often each function was called, the median of all walks."""
    counts = [Counter[tuple[str, str]]() for _ in walks]
    for counted_now, walk in zip(counts, walks, strict=True):
        for part in parts:
            for file, function, count in walk[part]["functions"]:
                counted_now[file, function] += count
    every = set().union(*counts)
    return Counter({function: int(median(one[function] for one in counts)) for function in every})


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp(prefix="chiffon-walk-"))
    place.chmod(0o711)  # PostgreSQL runs as a user of its own when this is root
    asyncio.run(main(place))
