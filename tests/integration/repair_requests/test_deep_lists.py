"""A page of repairs takes no longer with a hundred thousand runs before it and beside it."""

import time

import pytest

from common.rest.repairs import RepairStatus
from orchestrator.database.pool import Pool
from orchestrator.repairs import queries
from orchestrator.repairs.model import RepairFilter

RUNS = 100_000
MOST_SECONDS = 0.05

# Every service has its share of every status; half of all runs repair nothing.
FILL = """
    INSERT INTO run (run_id, request_id, trace_id, plan, digest, status, about, requested_by, created_at, finished_at)
    SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), '{}', sha256('x'),
           (ARRAY['succeeded', 'failed', 'rolled_back', 'cancelled'])[1 + number / 100 % 4],
           CASE WHEN number % 100 < 50 THEN '{}'::jsonb
                ELSE jsonb_build_object('service', 'service-' || number % 50, 'instruction', repeat('x', 500),
                                        'priority', 'normal', 'gate', 'none', 'plan_steps', '[]'::jsonb) END,
           '{}', now() - number * interval '1 second', now()
      FROM generate_series(1, $1::int) AS number
"""


@pytest.mark.own_ledger
async def test_a_page_takes_at_most_fifty_milliseconds(pool: Pool) -> None:
    await pool.execute(FILL, RUNS, timeout=60)
    await pool.execute("VACUUM ANALYZE run", timeout=60)

    for wanted, offset in (
        (RepairFilter(), 0),
        (RepairFilter(), 200),
        (RepairFilter(status=RepairStatus.ROLLED_BACK), 0),
        (RepairFilter(status=RepairStatus.PENDING), 0),
        (RepairFilter(service="service-49"), 0),
        (RepairFilter(status=RepairStatus.FAILED, service="service-49"), 0),
        (RepairFilter(service="nothing"), 0),
    ):
        seconds = []
        async with pool.acquire() as db:
            for _ in range(5):
                began = time.perf_counter()
                rows = await queries.newest(db, wanted, limit=20, offset=offset)
                seconds.append(time.perf_counter() - began)
        found = wanted.status is not RepairStatus.PENDING and wanted.service != "nothing"
        assert len(rows) == (20 if found else 0), wanted
        assert min(seconds) <= MOST_SECONDS, (wanted, offset, seconds)
