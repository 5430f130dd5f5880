"""`python -m tests.stress_attempts --programs 10000`: programs that try to outlive their attempts, and what is left.

A real agent runs them over a broker in memory. Each program carries a mark in the arguments of everything that it
starts, which no dropped environment, new session or lost parent takes away; a survivor is a process with the mark of an
attempt that ended more than `PATIENCE_SECONDS` ago. Exits with 0 only when there is none and all slots are free again.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from agents.main import run_agent
from agents.settings import AgentSettings
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from tests.eventually import eventually
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator

SLOTS = 16
IN_FLIGHT = 2 * SLOTS
PATIENCE_SECONDS = 5.0
# How long one program may take from its dispatch to its result, on a host that has much else to do.
RESULT_SECONDS = 120.0
READY = "ready"

# MARK stands for the mark: a number of seconds for `sleep`, an argument for everything else.
CHAIN = "perl -MPOSIX -e 'while (1) {{ my $child = fork; exit if $child; {each} }}' MARK > /dev/null 2>&1 &"
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "leaves the session": "setsid -f sleep MARK > /dev/null 2>&1",
        "drops the environment": "setsid -f env -i /bin/sleep MARK > /dev/null 2>&1",
        "forks twice": "( ( sleep MARK > /dev/null 2>&1 & ) & )",
        "is a daemon": 'perl -MPOSIX -e \'exit if fork; setsid; exit if fork; chdir "/"; %ENV = (); '
        'POSIX::close($_) for 0..63; exec "/bin/sleep", "MARK"\' MARK',
        "ignores signals": "trap '' TERM HUP INT QUIT; setsid -f sleep MARK > /dev/null 2>&1",
        "holds the pipes": "setsid -f sleep MARK",
        "goes on writing": "setsid -f sh -c 'while :; do echo $0; done' MARK",
        "stops itself": "setsid -f sh -c 'kill -STOP $$; sleep $0' MARK > /dev/null 2>&1",
        "forks without an end": CHAIN.format(each=""),
        "forks and leaves the session each time": CHAIN.format(each="setsid;"),
        "is many": "perl -e 'fork for 1..4; setpgrp; sleep 4000' MARK > /dev/null 2>&1 & sleep 0.05",
        "kills itself": "setsid -f sleep MARK > /dev/null 2>&1; kill -KILL $$",
        "kills its keeper": "setsid -f env -i /bin/sleep MARK > /dev/null 2>&1; kill -KILL $PPID; sleep MARK",
        "runs for too long": "trap '' TERM; setsid -f env -i /bin/sleep MARK; sleep MARK",
        "is cancelled": f"trap '' TERM; setsid -f env -i /bin/sleep MARK; echo {READY}; sleep MARK",
    }
)
PARAMETERS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"runs for too long": {"max_duration_seconds": 0.2}})


@dataclass
class Stress:
    """`survivors` are the kinds of programs of which something was left; `at_once` counts what its end itself left."""

    programs: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    at_once: Counter[str] = field(default_factory=Counter)
    survivors: Counter[str] = field(default_factory=Counter)
    slots_free: int = 0
    seconds: float = 0.0

    @property
    def has_held(self) -> bool:
        return not self.survivors.total() and self.slots_free == SLOTS

    def table(self) -> str:
        width = max(map(len, KINDS))
        rows = [f"{'kind':{width}}  programs  left at the end  left after {PATIENCE_SECONDS:g} s"]
        rows += [
            f"{kind:{width}}  {n:8}  {self.at_once[kind]:15}  {self.survivors[kind]:14}"
            for kind, n in ((kind, self.programs[kind]) for kind in KINDS)
        ]
        rows.append(
            f"{'all':{width}}  {self.programs.total():8}  {self.at_once.total():15}  {self.survivors.total():14}"
        )
        endings = ", ".join(f"{count} {status}" for status, count in self.endings.items())
        rows.append(f"{self.slots_free} of {SLOTS} slots are free; {endings}; {self.seconds:.0f} s")
        return "\n".join(rows)


async def run(programs: int, folder: Path) -> Stress:
    """Run so many programs, of all kinds in turn, and count what they leave."""
    stress, began = Stress(), time.monotonic()
    broker, stop = MemoryBroker(), asyncio.Event()
    settings = AgentSettings.load(
        state_dir=folder / "agent",
        signatures="off",
        slots=SLOTS,
        heartbeat_seconds=0.2,
        kill_grace_seconds=0.5,
        stop_grace_seconds=0,
    )
    async with ScriptedOrchestrator(broker).listening() as orchestrator:
        agent = asyncio.create_task(
            run_agent(settings, SharedSettings(broker_url="memory://"), broker=broker, stop=stop)
        )
        try:
            await eventually(lambda: orchestrator.heartbeats, timeout=30)
            room, trial = asyncio.Semaphore(IN_FLIGHT), Trial(orchestrator, stress)
            async with asyncio.TaskGroup() as group:
                for number in range(programs):
                    await room.acquire()
                    group.create_task(trial.one(list(KINDS)[number % len(KINDS)], room))
            await eventually(lambda: not orchestrator.heartbeats[-1].current_tasks, timeout=30)
            stress.slots_free = SLOTS - len(orchestrator.heartbeats[-1].current_tasks)
        finally:
            stop.set()
            await agent
    stress.seconds = time.monotonic() - began
    return stress


class Trial:
    def __init__(self, orchestrator: ScriptedOrchestrator, stress: Stress) -> None:
        self._orchestrator = orchestrator
        self._stress = stress
        self._mark = 100_000_000 + uuid4().int % 10_000_000 * 10

    async def one(self, kind: str, room: asyncio.Semaphore) -> None:
        """Run one program, make room for the next one, and look what is left of it."""
        self._mark += 1
        mark = str(self._mark)
        try:
            await self._ended(kind, mark)
        finally:
            room.release()
        ended_at = time.monotonic()
        self._stress.at_once[kind] += bool(carriers(mark))
        while (left := ended_at + PATIENCE_SECONDS - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.5))
        self._stress.survivors[kind] += bool(carriers(mark))

    async def _ended(self, kind: str, mark: str) -> None:
        orchestrator, script = self._orchestrator, KINDS[kind]
        task = await orchestrator.shell(script.replace("MARK", mark), **PARAMETERS.get(kind, {}))
        if READY in script:
            await eventually(lambda: READY in orchestrator.output(task), timeout=RESULT_SECONDS)
            await orchestrator.cancel(task)
        result = await orchestrator.ended(task, timeout=RESULT_SECONDS)
        # Looked through for every output, so it must not grow with the run.
        orchestrator.statuses[:] = [status for status in orchestrator.statuses if status.task_id != task]
        self._stress.programs[kind] += 1
        self._stress.endings[result.status] += 1


def carriers(mark: str) -> list[int]:
    """Return the processes that carry a mark in their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it is gone
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress_attempts", description="Try to outlive attempts.")
    parser.add_argument("--programs", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chiffon-stress-") as folder:
        stress = asyncio.run(run(options.programs, Path(folder)))
    print(stress.table())
    return 0 if stress.has_held else 1


if __name__ == "__main__":
    sys.exit(main())
