"""Advance runs: begin the steps that are due, as soon as something happened to a run, and at the latest a second later,
or later where many thousand steps are open.

Who hears of nothing, after a crash or beside another orchestrator, finds in the ledger which runs have changed.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from common.broker.base import Broker
from common.clock import Clock
from common.orders import Settle
from orchestrator.database.pool import is_outage
from orchestrator.loops.tell import tell
from orchestrator.runs.model import Link
from orchestrator.runs.open_runs import OpenRuns
from orchestrator.runs.service import RunService

log = logging.getLogger(__name__)

# Below every id.
FIRST = UUID(int=0)
SWEEP = timedelta(seconds=1)
# So many open runs are compared in one sweep, until they have so many rows, and so many runs advanced at a time. A
# sweep finds what events do not tell, and costs the ledger as much when nothing has happened.
SWEPT = 500
SWEPT_ROWS = 2000
AT_ONCE = 4
# A host that owns how its work ends mostly says so by itself in the first moment; then it is asked, again and again.
ASK_AFTER = timedelta(seconds=3)
ASK_EVERY = timedelta(seconds=15)


class AdvanceRuns:
    """Looks at the runs to which something happened, and asks hosts how work ended that the ledger has ended."""

    def __init__(self, runs: RunService, open_runs: OpenRuns, broker: Broker, clock: Clock) -> None:
        self._runs = runs
        self._open = open_runs
        self._broker = broker
        self._clock = clock
        self._sweep_at = clock.monotonic()
        self._swept_to = FIRST
        self._has_swept_all = False
        self._began_at = 0.0
        self._seen: set[UUID] = set()
        # When the host of each task is asked next, by the runs.
        self._ask_at: dict[UUID, dict[tuple[UUID, int], float]] = {}

    async def run_once(self) -> int:
        if self._clock.monotonic() >= self._sweep_at:
            await self._sweep()
        turn = self._open.take(limit=AT_ONCE)
        failures = [failure for failure in await asyncio.gather(*map(self._look_at, turn)) if failure is not None]
        if failures:
            raise failures[0]
        return len(turn)

    async def _sweep(self) -> None:
        """Compare some open runs with how they looked last, and look at those again whose hosts have to be asked."""
        if self._swept_to == FIRST:
            self._began_at, self._seen = asyncio.get_running_loop().time(), set()
        page = await self._runs.open_runs(after=self._swept_to, limit=SWEPT, most_rows=SWEPT_ROWS)
        self._open.swept(page.rows)
        self._seen.update(one.run_id for one in page.rows)
        if page.has_more:
            self._swept_to = page.rows[-1].run_id
        else:
            self._swept_to, self._has_swept_all = FIRST, True
            self._open.keep(self._seen, since=self._began_at)
        # Who has just started knows of no run.
        pause = SWEEP.total_seconds() if self._has_swept_all else 0
        self._sweep_at = self._clock.monotonic() + pause
        for run_id in list(self._ask_at):
            if run_id in self._open:
                self._open.due(run_id)
            else:
                del self._ask_at[run_id]

    async def _look_at(self, run_id: UUID) -> Exception | None:
        """Advance a run; return the failure when the ledger is away."""
        try:
            done = await self._runs.advance(run_id)
        except Exception as failure:
            self._open.looks_unlike(run_id)
            if is_outage(failure):
                return failure
            log.exception("run.not_advanced", extra={"run_id": run_id})
            return None
        if done is None:
            # Another orchestrator is at it, and may have read its tasks before the last of them ended.
            self._open.looks_unlike(run_id)
            return None
        if done.look_again:
            self._open.due(run_id)
        await self._ask(run_id, done.unsettled)
        return None

    async def _ask(self, run_id: UUID, unsettled: Sequence[Link]) -> None:
        """Ask the hosts of tasks how they ended, those whose time it is."""
        known, now = self._ask_at.pop(run_id, {}), self._clock.monotonic()
        orders: list[tuple[UUID, Settle]] = []
        ask_at: dict[tuple[UUID, int], float] = {}
        for link in unsettled:
            if link.task_id is None or link.agent_id is None:
                continue
            at = known.get((link.task_id, link.attempt), now + ASK_AFTER.total_seconds())
            if now >= at:
                orders.append((link.agent_id, Settle(task_id=link.task_id, attempt=link.attempt)))
                at = now + ASK_EVERY.total_seconds()
            ask_at[link.task_id, link.attempt] = at
        if ask_at:
            self._ask_at[run_id] = ask_at
        if orders:
            await tell(self._broker, orders)
