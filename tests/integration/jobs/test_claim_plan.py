"""However deep the backlog, a claim finds the best job through one index."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.database.pool import Connection, Pool, open_pool
from orchestrator.jobs import queries
from orchestrator.leases import finish_queries, waiting_queries
from orchestrator.leases import queries as leases
from orchestrator.leases.model import Asker, Line
from orchestrator.output import queries as output
from orchestrator.registry import queries as registry
from orchestrator.tasks import queries as tasks
from tests.factories import make_heartbeat
from tests.integration.orchestrator.test_deep_backlogs import pages_read
from tests.services.postgres import Postgres

pytestmark = pytest.mark.xdist_group("deep-backlog")

DEPTH = 40_000
# Five types, and a few candidates of each; a scan of the backlog would read more than a thousand.
FEW_PAGES = 400
RUNNING, AT_ONCE = 2_000, 16

FILL = """
    INSERT INTO task (task_id, request_id, trace_id, work_type, agent_type, parameters, hints, content_digest, priority,
                      idempotent, max_attempts, status, precedence)
    SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'type_' || n % 5, 'http', '{}', '{}', '', 3, false,
           3, 'pending', n % 11
      FROM generate_series(1, $1::int) AS n
"""


@asynccontextmanager
async def undone(db: Connection) -> AsyncIterator[None]:
    """Undo in the end what the block does."""
    transaction = db.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def columns(lines: Sequence[Line]) -> list[list[Any]]:
    """Return parameters that ask for a few of the best of each line."""
    return [
        [line.pool for line in lines],
        [line.work_type for line in lines],
        [line.aim for line in lines],
        [17] * len(lines),
    ]


ANALYZED, NEVER_ANALYZED = "analyzed", "never-analyzed"


@pytest.fixture(scope="module")
async def backlog(request: pytest.FixtureRequest, postgres: Postgres, ledger_template: str) -> AsyncIterator[Pool]:
    """A ledger with a deep backlog, of which the planner knows, or does not know yet; no test changes it."""
    url = await postgres.create_database(template=ledger_template)
    async with open_pool(url, connections=2) as pool:
        async with pool.acquire() as db:
            await db.execute("ALTER TABLE task SET (autovacuum_enabled = false)")
            await db.execute(FILL, DEPTH)
            if request.param == ANALYZED:
                await db.execute("ANALYZE task, attempt")
        yield pool
    await postgres.drop_database(url)


@pytest.mark.parametrize("backlog", [ANALYZED, NEVER_ANALYZED], indirect=True)
@pytest.mark.parametrize("types", [None, ["type_3"]], ids=["any", "one-type"])
async def test_a_claim_reads_a_few_pages_of_a_deep_backlog(backlog: Pool, types: list[str] | None) -> None:
    async with backlog.acquire() as db:
        lines = [line for line in await waiting_queries.lines(db) if types is None or line.work_type in types]

    assert len(lines) == (5 if types is None else 1)
    assert await pages_read(backlog, waiting_queries.LINES) < FEW_PAGES
    assert await pages_read(backlog, waiting_queries.WAITING, *columns(lines), []) < FEW_PAGES


@pytest.mark.parametrize("backlog", [ANALYZED], indirect=True)
async def test_a_claim_uses_the_index_made_for_it_and_never_reads_the_whole_table(backlog: Pool) -> None:
    async with backlog.acquire() as db:
        lines = columns(await waiting_queries.lines(db))
        answer = await db.fetchval(f"EXPLAIN (FORMAT JSON) {waiting_queries.WAITING}", *lines, [])

    plan = list(nodes(json.loads(answer)[0]["Plan"]))
    assert {node["Index Name"] for node in plan if "Index Name" in node} >= {"task_claimable", "task_pkey"}
    assert not [node for node in plan if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "task"]


@pytest.mark.parametrize("backlog", [ANALYZED], indirect=True)
@pytest.mark.parametrize("statement", ["HELD", "RENEW", "END", "REQUEUE", "REST", "REPORTED", "ATTEMPTS", "OUTPUT"])
async def test_what_runs_is_found_by_its_id_however_much_began_since_the_planner_last_looked(
    backlog: Pool, statement: str
) -> None:
    agent_id, lease = uuid4(), timedelta(minutes=1)
    async with backlog.acquire() as db, undone(db):
        ids: list[UUID] = [row["task_id"] for row in await db.fetch("SELECT task_id FROM task LIMIT $1", RUNNING)]
        await registry.record(db, [make_heartbeat(agent_id, agent_type="http")], {}, skew=lease)
        await db.execute("UPDATE agent SET worker_id = 'worker' WHERE agent_id = $1", agent_id)
        claims = [Asker(agent_id, "http", uuid4(), 1, lease) for _ in ids]
        found = await tasks.get(db, ids)
        leased, _ = await leases.lease(
            db, [(found[task_id], asker) for task_id, asker in zip(ids, claims, strict=True)], [], trial=lease
        )
        assert len(leased) == RUNNING
        some, nothing = ids[:AT_ONCE], [None] * AT_ONCE
        attempts, agents = [1] * AT_ONCE, [agent_id] * AT_ONCE
        texts = [""] * AT_ONCE
        sql, arguments = {
            "HELD": (queries.HELD, (agents, [one.claim_id for one in claims[:AT_ONCE]])),
            "RENEW": (leases.RENEW, (some, attempts, agents, lease)),
            "END": (leases.END, (some, attempts, ["completed"] * AT_ONCE, texts, texts, *[nothing] * 8)),
            "REQUEUE": (leases.REQUEUE, (some, attempts, texts, *[nothing] * 6, [True] * AT_ONCE, nothing)),
            "REST": (waiting_queries.REST, (some, [lease] * AT_ONCE)),
            "REPORTED": (finish_queries.REPORTED, (some, attempts)),
            "ATTEMPTS": (leases.ATTEMPTS, (some, attempts)),
            "OUTPUT": (output.STORE, (some, attempts, agents, ["stdout"] * AT_ONCE, attempts, attempts, texts)),
        }[statement]
        answer = await db.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *arguments)
    plan = list(nodes(json.loads(answer)[0]["Plan"]))
    used = {node["Index Name"] for node in plan if "Index Name" in node}
    assert used
    assert "task_leases" not in used
    assert not [node for node in plan if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "task"]
