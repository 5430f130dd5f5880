"""What is done to the ledger behind the program's back is found, on a real PostgreSQL."""

import asyncio
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg
import pytest

from orchestrator.audit import queries
from orchestrator.audit.model import Checkpoint, End, Finding, Flaw
from orchestrator.audit.verify import verify
from orchestrator.database.migrate import upgrade
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.chain import entry_of, link
from orchestrator.events.model import Event, Kind, NewEvent
from tests import fixed
from tests.eventually import eventually
from tests.integration.audit.conftest import work
from tests.integration.orchestrator.ledger import events_of


async def finding_in(db: Connection, checkpoints: Sequence[Checkpoint] = ()) -> Finding | None:
    return (await verify(db, checkpoints)).finding


async def checkpoint_now(db: Connection) -> Checkpoint:
    row = await db.fetchrow("SELECT seq, hash FROM event_head")
    assert row is not None
    return Checkpoint(row["seq"], row["hash"], datetime.now(UTC), "")


async def test_what_the_program_wrote_is_in_order(owner: Connection) -> None:
    verdict = await verify(owner, [await checkpoint_now(owner)])

    assert verdict.finding is None
    assert verdict.events == verdict.head.seq == 16


async def test_writers_side_by_side_make_one_chain(pool: Pool) -> None:
    async def write(name: str) -> None:
        for number in range(40):
            async with transaction(pool) as db:
                await events.append(db, *(NewEvent(Kind.AGENT_STATUS, name, {"n": number}) for _ in range(number % 4)))

    await asyncio.gather(*(write(f"writer {number}") for number in range(4)))

    async with pool.acquire() as db:
        verdict = await verify(db)
    assert verdict.finding is None
    assert verdict.events == 4 * 10 * (0 + 1 + 2 + 3)


WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def append(pool: Pool, *actors: str) -> None:
    """Write an event of each actor, all in one transaction."""
    async with transaction(pool) as db:
        await events.append(db, *(NewEvent(Kind.AGENT_STATUS, actor) for actor in actors))


async def test_events_that_are_written_together_are_chained_one_behind_the_other(pool: Pool) -> None:
    for actors in (("a", "b", "c"), ("d", "e", "f")):
        await append(pool, *actors)

    async with pool.acquire() as db:
        verdict = await verify(db)
    assert (verdict.finding, verdict.events) == (None, 6)


async def test_an_event_waits_for_the_commit_of_the_one_before_it(pool: Pool) -> None:
    async def waits() -> bool:
        async with pool.acquire() as db:
            return bool(await db.fetchval(WAITS))

    async with transaction(pool) as db:
        await events.append(db, NewEvent(Kind.AGENT_STATUS, "first"))
        other = asyncio.create_task(append(pool, "second"))
        await eventually(waits)
    await other

    assert [(event.seq, event.actor) for event in await events_of(pool)] == [(1, "first"), (2, "second")]
    async with pool.acquire() as db:
        assert await finding_in(db) is None


async def test_times_rise_with_the_numbers_however_long_a_transaction_takes(pool: Pool) -> None:
    async with transaction(pool) as db:
        await db.fetchval("SELECT 1")
        await append(pool, "quick")
        await events.append(db, NewEvent(Kind.AGENT_STATUS, "slow"))

    quick, slow = await events_of(pool)
    assert (quick.actor, slow.actor) == ("quick", "slow")
    assert quick.at < slow.at


async def test_what_is_written_while_a_log_is_checked_does_not_count(
    worked: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = queries.head

    async def head_and_more(db: Connection) -> End:
        end = await head(db)
        await work(worked, tasks=1)
        return end

    monkeypatch.setattr(queries, "head", head_and_more)

    async with worked.acquire() as db:
        verdict = await verify(db)

    assert (verdict.finding, verdict.events) == (None, 16)


async def test_the_ledger_chains_events_as_the_fixed_vectors_say(pool: Pool) -> None:
    async with pool.acquire() as db:
        hashes = await db.fetchval(
            "SELECT event_chain($1, $2, $3, $4)", fixed.BEFORE, fixed.EVENT.seq - 1, fixed.EVENT.at, [fixed.LEAF] * 2
        )

    assert hashes == [fixed.HASH, fixed.NEXT_HASH]


async def test_a_transaction_that_is_rolled_back_leaves_the_chain_as_it_was(worked: Pool) -> None:
    async with worked.acquire() as db:
        transaction = db.transaction()
        await transaction.start()
        await events.append(db, NewEvent(Kind.AGENT_STATUS, "nobody"))
        await transaction.rollback()
    await work(worked, tasks=1)

    async with worked.acquire() as db:
        assert await finding_in(db) is None


FOREIGN = "INSERT INTO event (seq, at, kind, actor, data, hash)"
DONE = {
    "the actor": ("UPDATE event SET actor = 'another' WHERE seq = 5", Flaw.EDITED, 5),
    "the kind": ("UPDATE event SET kind = 'task.failed' WHERE seq = 8", Flaw.EDITED, 8),
    "the time": ("UPDATE event SET at = at - interval '1 microsecond' WHERE seq = 6", Flaw.EDITED, 6),
    "the data": ("UPDATE event SET data = data || '{\"priority\": 5}' WHERE seq = 9", Flaw.EDITED, 9),
    "the data, to what has no hash": (f"UPDATE event SET data = '{{\"n\": {10**30}}}' WHERE seq = 9", Flaw.EDITED, 9),
    "a task": ("UPDATE event SET task_id = gen_random_uuid() WHERE seq = 2", Flaw.EDITED, 2),
    "a row removed": ("DELETE FROM event WHERE seq = 7", Flaw.REMOVED, 7),
    "the tail removed": ("DELETE FROM event WHERE seq > 12", Flaw.TRUNCATED, 13),
    "everything removed": ("DELETE FROM event", Flaw.TRUNCATED, 1),
    "two rows swapped": (
        "UPDATE event SET seq = -seq WHERE seq IN (3, 11); UPDATE event SET seq = 14 + seq WHERE seq < 0",
        Flaw.SWAPPED,
        3,
    ),
    "a row inserted": (
        f"""
        UPDATE event SET seq = -seq - 1 WHERE seq > 9; UPDATE event SET seq = -seq WHERE seq < 0;
        {FOREIGN} VALUES (10, now(), 'x', 'x', '{{}}', sha256('x')); UPDATE event_head SET seq = seq + 1
        """,
        Flaw.INSERTED,
        10,
    ),
    "a row behind the end": (
        f"{FOREIGN} VALUES (17, now(), 'x', 'x', '{{}}', sha256('x'))",
        Flaw.EDITED,
        17,
    ),
    "a row past the chain": (
        f"UPDATE event_head SET seq = 17; {FOREIGN} VALUES (17, now(), 'x', 'x', '{{}}', NULL)",
        Flaw.INSERTED,
        17,
    ),
    "the head": ("UPDATE event_head SET hash = sha256('x')", Flaw.FORKED, 16),
    "output edited": ("UPDATE output_chunk SET text = 'HELLO 1' WHERE text = 'hello 1'", Flaw.OUTPUT_EDITED, 7),
    "output removed": ("DELETE FROM output_chunk WHERE text = 'hello 2'", Flaw.OUTPUT_REMOVED, 11),
}


@pytest.mark.parametrize(("statements", "flaw", "seq"), list(DONE.values()), ids=list(DONE))
async def test_the_first_event_that_was_touched_is_named(
    owner: Connection, statements: str, flaw: Flaw, seq: int
) -> None:
    await owner.execute(statements)

    finding = await finding_in(owner)

    assert finding is not None
    assert (finding.flaw, finding.seq) == (flaw, seq)


async def test_a_tail_removed_under_a_head_made_to_fit_contradicts_a_checkpoint(owner: Connection) -> None:
    before = await checkpoint_now(owner)
    await owner.execute("DELETE FROM event WHERE seq > 12")
    await owner.execute("UPDATE event_head SET (seq, hash) = (SELECT seq, hash FROM event WHERE seq = 12)")
    unnoticed = await finding_in(owner)

    finding = await finding_in(owner, [before])

    assert unnoticed is None
    assert finding is not None
    assert (finding.flaw, finding.seq, finding.through) == (Flaw.TRUNCATED, 13, 16)


async def test_a_log_rewritten_from_some_event_on_contradicts_a_checkpoint(owner: Connection, worked: Pool) -> None:
    early, late = Checkpoint(4, await _hash_of(owner, 4), datetime.now(UTC), ""), await checkpoint_now(owner)
    await owner.execute("UPDATE event SET actor = 'another' WHERE seq = 6")
    await _chain_anew(owner, since=6)
    await work(worked, tasks=1)
    unnoticed = await finding_in(owner)

    finding = await finding_in(owner, [early, late])

    assert unnoticed is None
    assert finding is not None
    assert (finding.flaw, finding.seq, finding.through) == (Flaw.FORKED, 5, 16)


@pytest.mark.parametrize("statement", ["UPDATE event SET actor = ''", "DELETE FROM event", "TRUNCATE event"])
async def test_the_ledger_refuses_to_change_or_remove_events(worked: Pool, statement: str) -> None:
    async with worked.acquire() as db:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="never changed or removed"):
            await db.execute(statement)


@pytest.mark.parametrize("retention", ["off", "on"])
async def test_a_new_ledger_lets_nobody_change_events_or_remove_them_by_mistake(
    database_url: str, retention: str
) -> None:
    statements = ["UPDATE event SET actor = ''", "TRUNCATE event"]
    await upgrade(database_url)
    db = await asyncpg.connect(database_url)
    try:
        await db.execute(f"SET chiffon.retention = '{retention}'")
        for statement in [*statements, "DELETE FROM event"] if retention == "off" else statements:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="never changed or removed"):
                await db.execute(statement)
    finally:
        await db.close()


async def test_retention_removes_the_oldest_and_the_rest_still_proves_itself(worked: Pool) -> None:
    async with transaction(worked) as db:
        await db.execute("SET LOCAL chiffon.retention = 'on'")
        await db.execute("INSERT INTO event_start (seq, hash) SELECT seq, hash FROM event WHERE seq = 8")
        await db.execute("DELETE FROM event WHERE seq <= 8")

    async with worked.acquire() as db:
        verdict = await verify(db)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await db.execute("DELETE FROM event")

    assert verdict.finding is None
    assert (verdict.begin.seq, verdict.events) == (8, 8)


async def test_a_long_log_is_checked_without_being_held(pool: Pool) -> None:
    for _ in range(20):
        async with transaction(pool) as db:
            await events.append(db, *(NewEvent(Kind.AGENT_STATUS, "writer", {"n": n}) for n in range(1000)))
    heard: list[tuple[int, int]] = []

    async with pool.acquire() as db:
        tracemalloc.start()
        verdict = await verify(db, progress=lambda seen, total: heard.append((seen, total)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert verdict.finding is None
    assert heard == [(10_000, 20_000), (20_000, 20_000)]
    assert peak < 8 * 1024 * 1024


async def _hash_of(db: Connection, seq: int) -> bytes:
    found: bytes = await db.fetchval("SELECT hash FROM event WHERE seq = $1", seq)
    return found


async def _chain_anew(db: Connection, *, since: int) -> None:
    """Do what somebody does who can write to the ledger and knows how hashes are made."""
    before = await _hash_of(db, since - 1)
    for row in await db.fetch("SELECT *, NULL AS text FROM event WHERE seq >= $1 ORDER BY seq", since):
        event = Event.from_row(row)
        before = link(before, event.seq, event.at, entry_of(event).leaf)
        await db.execute("UPDATE event SET hash = $2 WHERE seq = $1", event.seq, before)
    await db.execute("UPDATE event_head SET hash = $1", before)
