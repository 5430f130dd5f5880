"""What must never be true cannot be stored, and every statement fits the schema."""

import importlib
import json
import pkgutil
from collections.abc import AsyncIterator, Iterator
from itertools import product
from uuid import UUID, uuid4

import asyncpg
import pytest

import orchestrator
from chiffon.ledger import current_version
from common.lifecycle import TRANSITIONS, Status
from orchestrator.database.migrate import last_migration, migration_before, upgrade, upgrade_sql
from orchestrator.database.pool import Connection, Pool, open_pool
from orchestrator.database.version import HEAD
from orchestrator.identities.tokens import digest_of
from orchestrator.tasks import queries as tasks
from tests.factories import make_new_task
from tests.integration.orchestrator.conftest import AGEING
from tests.services.postgres import Postgres

pytestmark = pytest.mark.own_ledger

KEYWORDS = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")


def statements() -> Iterator[tuple[str, str]]:
    """Yield the name and text of every SQL constant of the orchestrator."""
    for module in pkgutil.walk_packages(orchestrator.__path__, "orchestrator."):
        if ".migrations" not in module.name:
            for name, value in vars(importlib.import_module(module.name)).items():
                if name.isupper() and isinstance(value, str) and value.strip().startswith(KEYWORDS):
                    yield f"{module.name}.{name}", value


@pytest.fixture(scope="module")
async def schema(postgres: Postgres, ledger_template: str) -> AsyncIterator[Pool]:
    """Connections to one ledger, for tests that leave nothing in it."""
    url = await postgres.create_database(template=ledger_template)
    async with open_pool(url, connections=2) as opened:
        yield opened
    await postgres.drop_database(url)


@pytest.fixture
async def db(schema: Pool) -> AsyncIterator[Connection]:
    """A connection to an empty ledger; what is written over it is taken back."""
    async with schema.acquire() as connection:
        writing = connection.transaction()
        await writing.start()
        yield connection
        await writing.rollback()


@pytest.mark.parametrize(("name", "statement"), list(statements()), ids=[name for name, _ in statements()])
async def test_every_sql_constant_fits_the_migrated_schema(db: Connection, name: str, statement: str) -> None:
    await db.prepare(statement)


def test_the_search_for_statements_finds_them() -> None:
    assert len(list(statements())) > 25


def test_the_version_that_this_program_needs_is_the_last_migration() -> None:
    assert last_migration() == HEAD


async def test_an_empty_database_is_migrated_to_the_head_and_twice_is_once(database_url: str) -> None:
    assert await current_version(database_url) is None

    await upgrade(database_url)
    await upgrade(database_url)

    assert await current_version(database_url) == HEAD


async def test_the_first_administrators_of_a_ledger_approve_after_its_upgrade_as_before(database_url: str) -> None:
    await upgrade(database_url, to=migration_before("0013"))
    db = await asyncpg.connect(database_url)
    try:
        for name, maker in (("root", "bootstrap"), ("bob", "root")):
            ids = uuid4(), uuid4()
            await db.execute(
                "INSERT INTO principal (principal_id, kind, name, roles, created_by) VALUES ($1, 'person', $2, $3, $4)",
                *(ids[0], name, ["admin", "approver"], maker),
            )
            await db.execute(
                "INSERT INTO token (token_id, principal_id, purpose, digest, created_by) SELECT $1, $2, 'api', $3, $4",
                *(ids[1], ids[0], digest_of(name), maker),
            )

        await upgrade(database_url)

        rows = await db.fetch(
            "SELECT created_by, makers, claimed_at = created_at AS own FROM token ORDER BY created_by"
        )
        assert [tuple(row) for row in rows] == [("bootstrap", ["bootstrap"], True), ("root", ["root"], None)]
    finally:
        await db.close()


RUNS_IN_0014 = """
    status = 'running', attempt = 1, fence = 1, agent_id = task_id, claim_id = task_id, lease_expires_at = now(),
    started_at = now()
"""
# A task of each kind, with the attempts that version 0014 has of it: (number, ended, outcome, output_bytes).
OF_0014: dict[str, tuple[str, list[tuple[int, bool, str | None, str | None]]]] = {
    "waits": ("attempt = 0", []),
    "runs": (
        RUNS_IN_0014,
        [(1, False, None, None)],
    ),
    "waits again": ("attempt = 1, fence = 1, agent_id = gen_random_uuid()", [(1, True, "failed", '{"stdout": 1}')]),
    "completed at last": (
        "status = 'completed', attempt = 2, fence = 2, agent_id = gen_random_uuid(), finished_at = now()",
        [(1, True, "lost", None), (2, True, "completed", '{"stdout": 5}')],
    ),
    "lost": (
        "status = 'failed', attempt = 1, fence = 1, agent_id = gen_random_uuid(), finished_at = now()",
        [(1, True, "lost", None)],
    ),
    "cancelled while it ran": (
        "status = 'cancelled', attempt = 1, fence = 2, agent_id = gen_random_uuid(), finished_at = now()",
        [(1, True, "cancelled", '{"stdout": 2}')],
    ),
    "cancelled while it waited again": (
        "status = 'cancelled', attempt = 1, fence = 1, agent_id = gen_random_uuid(), finished_at = now()",
        [(1, True, "failed", None)],
    ),
}
ORDER = {"payload": {"order": {"action": "cancel", "task_id": str(UUID(int=1)), "fence": 3}}}


async def test_a_ledger_of_version_0014_keeps_every_task_attempt_and_order(database_url: str) -> None:
    await upgrade(database_url, to=migration_before("0015"))
    db = await asyncpg.connect(database_url)
    try:
        ids = {}
        for name, (values, tried) in OF_0014.items():
            ids[name] = task_id = uuid4()
            await db.execute(
                "INSERT INTO task (task_id, request_id, trace_id, work_type, agent_type, parameters, hints, priority,"
                " idempotent, max_attempts, status, content_digest, rank)"
                " VALUES ($1, $1, $1, 'echo', 'infra', '{}', '{}', 3, true, 9, 'pending', '', now())",
                task_id,
            )
            await db.execute("ALTER TABLE task DISABLE TRIGGER USER")
            await db.execute(f"UPDATE task SET {values} WHERE task_id = $1", task_id)
            await db.execute("ALTER TABLE task ENABLE TRIGGER USER")
            for number, ended, outcome, size in tried:
                await db.execute(
                    "INSERT INTO attempt (task_id, number, fence, agent_id, claim_id, ended_at, outcome, output_bytes)"
                    " SELECT $1, $2::int, $2::int, agent_id, $1, CASE WHEN $3 THEN now() END, $4, $5::jsonb"
                    " FROM task WHERE task_id = $1",
                    *(task_id, number, ended, outcome, size),
                )
        await db.execute(
            "INSERT INTO outbox (recipient, priority, body, due_at) VALUES ('a', 5, $1::jsonb, now())",
            json.dumps(ORDER),
        )
        statuses = "SELECT task_id, status, attempt FROM task ORDER BY task_id"
        attempts = (
            "SELECT task_id, number, agent_id, outcome, output_bytes, ended_at IS NULL AS open FROM attempt"
            " ORDER BY task_id, number"
        )
        before = await db.fetch(statuses), await db.fetch(attempts)

        await upgrade(database_url)

        assert (await db.fetch(statuses), await db.fetch(attempts)) == before
        own_rows = await db.fetch("SELECT task_id, number FROM earlier_attempt")
        assert {tuple(row) for row in own_rows} == {
            (ids["waits again"], 1),
            (ids["completed at last"], 1),
            (ids["cancelled while it waited again"], 1),
        }
        order = json.loads(await db.fetchval("SELECT body FROM outbox"))["payload"]["order"]
        assert order == {"action": "cancel", "task_id": str(UUID(int=1)), "attempt": 3}
    finally:
        await db.close()


async def test_the_offline_sql_makes_the_same_schema(database_url: str, ledger_url: str) -> None:
    db = await asyncpg.connect(database_url)
    migrated = await asyncpg.connect(ledger_url)
    columns = """
        SELECT table_name, column_name, data_type FROM information_schema.columns
         WHERE table_schema = 'public' ORDER BY 1, 2
    """
    try:
        await db.execute(upgrade_sql())

        assert await db.fetch(columns) == await migrated.fetch(columns)
    finally:
        await db.close()
        await migrated.close()


async def _stored(db: Connection) -> object:
    task = make_new_task(max_attempts=3)
    await tasks.insert(db, [task], ageing=AGEING)
    return task.task_id


ILLEGAL = {
    "a priority out of range": "UPDATE task SET priority = 6",
    "a status that does not exist": "UPDATE task SET status = 'paused'",
    "running without a lease": "UPDATE task SET status = 'running', attempt = 1",
    "a lease without running": "UPDATE task SET lease_expires_at = now()",
    "final without an end": "UPDATE task SET status = 'cancelled'",
    "an end without being final": "UPDATE task SET finished_at = now()",
    "more starts than allowed": "UPDATE task SET attempt = 4",
}


@pytest.mark.parametrize("statement", list(ILLEGAL.values()), ids=list(ILLEGAL))
async def test_an_illegal_state_cannot_be_stored(db: Connection, statement: str) -> None:
    await _stored(db)
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(statement)


async def test_the_number_of_attempts_never_falls(db: Connection) -> None:
    await _stored(db)
    await db.execute("UPDATE task SET attempt = 2")
    with pytest.raises(asyncpg.CheckViolationError, match="may only rise"):
        await db.execute("UPDATE task SET attempt = 1")


async def test_a_task_has_at_most_one_open_attempt(db: Connection) -> None:
    """The row of a task is its last attempt; those before have ended."""
    task_id = await _stored(db)
    insert = """
        INSERT INTO earlier_attempt (task_id, number, agent_id, claim_id, ended_at, outcome)
        VALUES ($1, 1, $2, $2, NULL, NULL)
    """
    with pytest.raises(asyncpg.CheckViolationError, match="earlier_attempt_has_ended"):
        await db.execute(insert, task_id, uuid4())


FITTING = {
    Status.AWAITING_APPROVAL: ", approval_id = gen_random_uuid()",
    Status.PENDING: "",
    Status.RUNNING: ", agent_id = gen_random_uuid(), claim_id = gen_random_uuid(), lease_expires_at = now(),"
    " attempt = 1, started_at = now()",
    Status.COMPLETED: ", finished_at = now()",
    Status.FAILED: ", finished_at = now()",
    Status.CANCELLED: ", finished_at = now()",
}


@pytest.mark.parametrize(("before", "after"), list(product(Status, Status)), ids=str)
async def test_the_guard_in_the_database_allows_exactly_the_moves_of_the_table(
    db: Connection, before: Status, after: Status
) -> None:
    allowed = before is after or any(
        source is before and target is after for (source, _), target in TRANSITIONS.items()
    )
    clear = "claim_id = NULL, lease_expires_at = NULL, finished_at = NULL"
    await _stored(db)
    # Whether it was approved has a guard of its own.
    await db.execute("ALTER TABLE task DISABLE TRIGGER task_needs_its_approval")
    await db.execute("ALTER TABLE task DISABLE TRIGGER task_guard")
    await db.execute(f"UPDATE task SET status = '{before}'{FITTING[before]}")
    await db.execute("ALTER TABLE task ENABLE TRIGGER task_guard")
    fitting = FITTING[after].removeprefix(",")
    kept = ", ".join(part for part in clear.split(", ") if part.split(" =")[0] not in fitting)
    move = f"UPDATE task SET status = '{after}', {kept}" + (f", {fitting}" if fitting else "")
    if allowed:
        await db.execute(move)
    else:
        with pytest.raises(asyncpg.CheckViolationError, match="cannot go from"):
            await db.execute(move)
