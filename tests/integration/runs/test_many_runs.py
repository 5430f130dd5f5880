"""Lists of many runs."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from chiffon.client import Client
from common.plans.status import RunStatus
from orchestrator.database.pool import Pool
from orchestrator.runs import queries
from orchestrator.runs.model import RunFilter
from tests.integration.runs.conftest import echo, plan

pytestmark = pytest.mark.xdist_group("runs/many_runs")

MANY = 100_000
PAGE_SECONDS = 0.050
TRIES = 5

# Of a thousand runs one runs, one is of the service `rare`, and one is called so.
FILL = """
    INSERT INTO run (run_id, request_id, trace_id, name, plan, digest, status, about, requested_by, created_at,
                     started_at, finished_at)
    SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
           CASE number % 1000 WHEN 1 THEN 'rare' ELSE 'nightly' END, '{"steps": []}', sha256(number::text::bytea),
           CASE number % 1000 WHEN 0 THEN 'running' WHEN 2 THEN 'failed' ELSE 'succeeded' END,
           CASE number % 1000 WHEN 3 THEN '{"service": "rare"}'
                ELSE jsonb_build_object('service', 'web-' || number % 7, 'instruction', repeat('x', 500)) END,
           '{"name": "ann"}', now() - number * interval '1 second', now(),
           CASE number % 1000 WHEN 0 THEN NULL ELSE now() END
      FROM generate_series(1, $1::int) AS number
"""


@pytest.fixture
async def many(own_pool: Pool) -> Pool:
    """A ledger with a hundred thousand runs."""
    async with own_pool.acquire() as db:
        await db.execute(FILL, MANY)
        await db.execute("ANALYZE run")
    return own_pool


def behind(number: int) -> tuple[datetime, UUID]:
    return datetime.now(UTC) - timedelta(seconds=number), UUID(int=0)


WANTED: dict[str, tuple[Callable[[], RunFilter], int]] = {
    "all": (RunFilter, 50),
    "often": (lambda: RunFilter(status=RunStatus.SUCCEEDED), 50),
    "seldom": (lambda: RunFilter(status=RunStatus.RUNNING), 50),
    "never": (lambda: RunFilter(status=RunStatus.CANCELLED), 0),
    "a name": (lambda: RunFilter(name="rare"), 50),
    "no name": (lambda: RunFilter(name="other"), 0),
    "a service": (lambda: RunFilter(service="rare"), 50),
    "another service": (lambda: RunFilter(service="web-3"), 50),
    "no service": (lambda: RunFilter(service="other"), 0),
    "a service and a status": (lambda: RunFilter(service="web-3", status=RunStatus.SUCCEEDED), 50),
    "the last page": (lambda: RunFilter(before=behind(MANY - 50)), 50),
    "the last page of a service": (lambda: RunFilter(service="web-3", before=behind(MANY - 400)), 50),
    "the last page of all filters": (
        lambda: RunFilter(RunStatus.SUCCEEDED, "nightly", "web-3", before=behind(MANY - 400)),
        50,
    ),
    "a status in the middle": (lambda: RunFilter(status=RunStatus.FAILED, before=behind(MANY // 2)), 50),
}


@pytest.mark.own_ledger
async def test_a_page_of_a_hundred_thousand_runs_takes_no_time_whatever_is_asked_for(many: Pool) -> None:
    slow: dict[str, float] = {}
    for name, (wanted, most) in WANTED.items():
        taken = []
        for _ in range(TRIES):
            began = time.perf_counter()
            async with many.acquire() as db:
                page = await queries.newest(db, wanted(), limit=50)
            taken.append(time.perf_counter() - began)
            assert len(page.rows) == most, name
        # What else the machine does makes some of them longer, and none shorter.
        if min(taken) > PAGE_SECONDS:
            slow[name] = round(min(taken), 4)

    assert not slow


async def test_pages_show_each_run_once(client: Client) -> None:
    names = [uuid4().hex, uuid4().hex]
    started = [(await client.start_run(plan(echo("one")), name=names[number % 2])).run_id for number in range(7)]

    seen: list[UUID] = []
    cursor: str | None = None
    while True:
        page = await client.runs(name=names[0], limit=2, cursor=cursor)
        seen += [run.run_id for run in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == started[::2][::-1]
    assert [run.run_id for run in (await client.runs(limit=7)).items] == started[::-1]
    assert (await client.runs(service="web")).items == []


async def test_a_page_of_large_runs_ends_early(pool: Pool) -> None:
    async with pool.acquire() as db:
        await db.execute(FILL, 7)
        await db.execute(
            "UPDATE run SET error_message = repeat('x', 100000),"
            " about = jsonb_build_object('instruction', repeat('x', 1000000))"
        )

        page = await queries.newest(db, RunFilter(), limit=5, most_bytes=250_000)

    assert (len(page.rows), page.has_more) == (3, True)
