"""Have events of runs become metrics, each once, however many orchestrators there are."""

from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from common.clock import Clock
from common.loop import Wake
from common.postgres import OUTAGE, Database
from orchestrator.database.pool import Connection, Pool
from orchestrator.events.model import Event, Kind
from orchestrator.metrics import queries
from orchestrator.metrics.names import ABOUT_RUNS, WORTH, of_run, of_step
from orchestrator.metrics.statsd import Metric, StatsD
from orchestrator.settings import OrchestratorSettings

AT_ONCE = 200
CHECK_EVERY = timedelta(seconds=3)
CLOSE_SECONDS = 2.0


class Turn:
    """Whether this orchestrator is the one that sends: it holds a lock at a session of its own."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._session: Any = None
        self._checked_at = clock.monotonic()
        self._is_held = False

    @property
    def is_ours(self) -> bool:
        return self._is_held and not self._session.is_closed()

    async def take(self) -> None:
        """Take the turn if nobody has it, and make sure of one that was taken; raises one of `OUTAGE`."""
        try:
            if self._session is None or self._session.is_closed():
                self._is_held = False
                self._session = await self._database.connect()
            if not self._is_held:
                self._is_held = await queries.claim(self._session)
                self._checked_at = self._clock.monotonic()
            elif self._clock.monotonic() - self._checked_at >= CHECK_EVERY.total_seconds():
                await self._database.check(self._session)
                self._checked_at = self._clock.monotonic()
        except OUTAGE:
            self._is_held = False
            if self._session is not None:
                self._session.terminate()
            raise

    async def leave(self) -> None:
        """Let another one have the turn."""
        self._is_held = False
        if self._session is not None and not self._session.is_closed():
            await self._session.close(timeout=CLOSE_SECONDS)


class ReportMetrics:
    """Listens to events, and sends the metrics that they are worth while it is this orchestrator's turn.

    `bell` rings when there is something to send.
    """

    def __init__(self, pool: Pool, statsd: StatsD, turn: Turn) -> None:
        self.bell = Wake()
        self._pool = pool
        self._statsd = statsd
        self._turn = turn
        self._heard: deque[Event] = deque()

    @property
    def listens(self) -> bool:
        """Whether it is to be shown events."""
        return self._turn.is_ours

    def heard(self, events: Iterable[Event]) -> None:
        """Take note of what is worth a metric."""
        if self._turn.is_ours:
            self._heard.extend(event for event in events if event.kind in WORTH)
            if self._heard:
                self.bell.ring()

    async def run_once(self) -> int:
        """Make sure whose turn it is and send what was heard; return how many events that were."""
        await self._turn.take()
        await self._statsd.open()
        if not self._statsd.is_open:
            self._heard.clear()
            return 0
        batch = [self._heard[place] for place in range(min(AT_ONCE, len(self._heard)))]
        if batch:
            async with self._pool.acquire() as db:
                metrics = await _worth(db, batch)
            self._statsd.send(*metrics)
            for _ in batch:
                self._heard.popleft()
        return len(batch)


async def _worth(db: Connection, events: Sequence[Event]) -> list[Metric]:
    """Return what events are worth, in their order."""
    approved = {event.task_id for event in events if event.kind == Kind.APPROVAL_APPROVED and event.task_id is not None}
    services = await queries.services_of_tasks(db, approved)
    runs = {UUID(event.data["run_id"]) for event in events if event.kind in ABOUT_RUNS}
    services |= await queries.services_of_runs(db, runs)
    metrics: list[Metric] = []
    for event in events:
        if event.kind == Kind.TASK_STEP:
            step = await queries.of_step(db, event)
            metrics += () if step is None else of_step(event, step)
        else:
            run_or_task = UUID(event.data["run_id"]) if event.kind in ABOUT_RUNS else event.task_id
            if run_or_task in services:
                metrics += of_run(event, services[run_or_task])
    return metrics


@asynccontextmanager
async def open_metrics(settings: OrchestratorSettings, pool: Pool, clock: Clock) -> AsyncIterator[ReportMetrics | None]:
    """Give what reports metrics; None where the settings name no host to send them to."""
    if not settings.statsd_host:
        yield None
        return
    turn = Turn(pool.database, clock)
    with StatsD(settings.statsd_host, settings.statsd_port, prefix=settings.statsd_prefix, clock=clock) as statsd:
        report = ReportMetrics(pool, statsd, turn)
        try:
            # Before the first request, so that its run is counted.
            await report.run_once()
            yield report
        finally:
            await turn.leave()
