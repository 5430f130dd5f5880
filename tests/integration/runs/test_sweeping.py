"""A sweep compares a bounded number of rows, and comes to every open run."""

from collections.abc import Sequence
from typing import cast
from uuid import UUID, uuid4

import pytest

from common.broker.memory import MemoryBroker
from common.plans.status import RunStatus
from orchestrator.database.pages import Listing
from orchestrator.database.pool import Pool
from orchestrator.loops.advance_runs import FIRST, SWEEP, AdvanceRuns
from orchestrator.runs import queries
from orchestrator.runs.model import Pending
from orchestrator.runs.open_runs import OpenRuns
from orchestrator.runs.service import Advanced, RunService
from tests.fakes.clock import FakeClock

RUNS = [UUID(int=number) for number in range(1, 4)]
ADD_RUN = """
    INSERT INTO run (run_id, request_id, trace_id, plan, digest, status, requested_by)
    VALUES ($1, gen_random_uuid(), gen_random_uuid(), '{}', sha256('run'), 'running', '{}')
"""
ADD_ROWS = """
    INSERT INTO run_step (run_id, step, kind, number, task_id)
    SELECT $1, 'step ' || position, 'step', 1, gen_random_uuid() FROM generate_series(1, 2) AS position
"""


@pytest.mark.parametrize(
    ("limit", "most_rows", "found"), [(10, 2, 1), (10, 3, 2), (10, 4, 2), (10, 5, 3), (2, 100, 2), (3, 100, 3)]
)
async def test_a_page_of_a_sweep_ends_with_so_many_runs_or_rows(
    pool: Pool, limit: int, most_rows: int, found: int
) -> None:
    async with pool.acquire() as db:
        for run_id in RUNS:
            await db.execute(ADD_RUN, run_id)
            await db.execute(ADD_ROWS, run_id)

        page = await queries.open_runs(db, after=FIRST, limit=limit, most_rows=most_rows)
        rest = await queries.open_runs(db, after=page.rows[-1].run_id, limit=10, most_rows=100)

    assert [one.run_id for one in page.rows] == RUNS[:found]
    assert page.has_more == (found < len(RUNS))
    assert [one.run_id for one in rest.rows] == RUNS[found:]
    assert not rest.has_more


class Paged:
    """Runs of which each page has one."""

    def __init__(self) -> None:
        self.pages: list[UUID] = []
        self.looked_at: list[UUID] = []

    async def open_runs(self, *, after: UUID, limit: int, most_rows: int) -> Listing[Pending]:
        self.pages.append(after)
        above: Sequence[UUID] = [run_id for run_id in RUNS if run_id > after]
        return Listing([Pending(run_id, uuid4(), "as before") for run_id in above[:1]], has_more=len(above) > 1)

    async def advance(self, run_id: UUID) -> Advanced:
        self.looked_at.append(run_id)
        return Advanced(RunStatus.RUNNING)


async def test_who_starts_finds_all_runs_at_once_and_sweeps_a_page_a_second_from_then_on() -> None:
    clock, runs = FakeClock(), Paged()
    loop = AdvanceRuns(cast("RunService", runs), OpenRuns(), MemoryBroker(), clock)

    for _ in range(5):
        await loop.run_once()
    at_once = list(runs.pages)
    for _ in range(3):
        clock.advance(seconds=SWEEP.total_seconds())
        await loop.run_once()
        await loop.run_once()

    assert at_once == [FIRST, *RUNS[:2]]
    assert runs.pages[3:] == [FIRST, *RUNS[:2]]
    assert runs.looked_at == RUNS
