"""Makes the faults of a plan, one task each, and watches how long everything takes to recover from them."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence

from tests.chaos.faults import make
from tests.chaos.history import FaultRecord
from tests.chaos.plan import Fault
from tests.chaos.world import World

LOOK_SECONDS = 0.25
PATIENCE_SECONDS = 90.0


class Nemesis:
    """Runs a plan; what it did is in the history."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._watching: list[asyncio.Task[None]] = []
        self._busy: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self, plan: Sequence[Fault]) -> None:
        """Make every fault at its time and return when all have healed."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
                group.create_task(self._make(fault), name=fault.kind)

    async def recovered(self) -> None:
        """Return when full service was seen after every fault, or was waited for in vain."""
        await asyncio.gather(*self._watching)

    async def _make(self, fault: Fault) -> None:
        # Making and healing take their time, so that one fault may be due while the one before it is not over.
        async with self._busy[fault.target]:
            record = FaultRecord(fault.kind, fault.target, time.time())
            self._world.history.faults.append(record)
            try:
                async with make(self._world, fault):
                    await asyncio.sleep(fault.duration)
            except Exception as failure:
                record.failure = f"{type(failure).__name__}: {failure}"
                return
            record.healed = time.time()
        self._watching.append(asyncio.create_task(self._watch(record), name=f"recovery from {fault.kind}"))

    async def _watch(self, record: FaultRecord) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            missing = await self._world.missing()
            if not missing:
                record.service = time.time()
                return
            record.missing = missing
            await asyncio.sleep(LOOK_SECONDS)
