"""The audit log answers who did what, from the ledger alone."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from common.rest.audit import AuditResult
from orchestrator.audit import queries
from orchestrator.audit.model import Question
from orchestrator.audit.service import AuditService
from orchestrator.database.pool import Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Event, Kind, NewEvent
from tests.integration.audit.conftest import work
from tests.integration.orchestrator.ledger import events_of


async def asked(pool: Pool, *, limit: int = 1000, window: int = 1000, **wanted: Any) -> list[Event]:
    """Return everything that a question finds, page after page."""
    found: list[Event] = []
    after: int | None = 0
    while after is not None:
        page = await AuditService(pool, window=window).ask(Question(**wanted), after=after, limit=limit)
        found += [row.event for row in page.rows]
        after = page.next_after
    return found


async def test_each_part_of_a_question_narrows_the_answer(worked: Pool) -> None:
    everything = await events_of(worked)
    one = everything[5]

    assert len(await asked(worked)) == len(everything) == 16
    assert {event.task_id for event in await asked(worked, task_id=one.task_id)} == {one.task_id}
    assert {event.trace_id for event in await asked(worked, trace_id=one.trace_id)} == {one.trace_id}
    assert [event.seq for event in await asked(worked, agent_id=one.agent_id)] == [6, 7, 8]
    assert [event.kind for event in await asked(worked, actor="somebody")] == ["task.dispatched"] * 4
    assert [event.seq for event in await asked(worked, kinds=("task.claimed",))] == [2, 6, 10, 14]
    assert [event.seq for event in await asked(worked, results=(AuditResult.COMPLETED,))] == [4, 8, 12, 16]
    assert await asked(worked, results=(AuditResult.FAILED, AuditResult.REFUSED)) == []
    assert await asked(worked, results=(AuditResult.COMPLETED,), kinds=("task.claimed",)) == []
    assert len(await asked(worked, work_type="echo")) == 16
    assert await asked(worked, work_type="shell_script") == []
    assert await asked(worked, task_id=uuid4()) == []


async def test_a_time_range_begins_with_its_begin_and_ends_before_its_end(worked: Pool) -> None:
    everything = await events_of(worked)
    begin, end = everything[4].at, everything[9].at

    found = await asked(worked, since=begin, until=end)

    assert [event.seq for event in found] == [5, 6, 7, 8, 9]
    assert await asked(worked, since=everything[-1].at + timedelta(seconds=1)) == []
    assert await asked(worked, until=everything[0].at) == []
    assert len(await asked(worked, since=everything[0].at - timedelta(days=1))) == 16


async def test_an_empty_log_has_no_answer(pool: Pool) -> None:
    now = datetime.now(UTC)

    assert await asked(pool) == []
    assert await asked(pool, since=now - timedelta(days=1), until=now + timedelta(days=1)) == []


@pytest.mark.parametrize(("limit", "window"), [(1, 1000), (3, 1000), (1000, 1), (2, 3)])
async def test_pages_show_everything_once_whatever_their_size(worked: Pool, limit: int, window: int) -> None:
    found = await asked(worked, limit=limit, window=window, kinds=("task.claimed", "task.completed"))

    assert [event.seq for event in found] == [2, 4, 6, 8, 10, 12, 14, 16]


async def test_a_page_looks_through_a_window_only_and_says_where_to_go_on(worked: Pool) -> None:
    page = await AuditService(worked, window=3).ask(Question(actor="nobody"), after=0, limit=10)

    assert (page.rows, page.next_after) == ([], 3)


@pytest.mark.own_ledger
async def test_a_task_a_trace_and_a_range_are_found_by_an_index(pool: Pool) -> None:
    await work(pool, tasks=1)
    [first, *_] = await events_of(pool)
    async with transaction(pool) as db:
        await events.append(
            db, *(NewEvent(Kind.TASK_CLAIMED, "x", task_id=uuid4(), trace_id=uuid4()) for _ in range(3000))
        )
        await db.execute("ANALYZE event")

    async with pool.acquire() as db:
        nothing: list[Any] = [None] * 6
        asked = queries.ASK.replace("$10", "1000000").replace("$9", "10")
        for place, value in ((1, first.task_id), (2, first.trace_id)):
            wanted = [*nothing[:place], value, *nothing[place + 1 :]]
            plan = await db.fetch("EXPLAIN " + asked, 0, 10_000, *wanted)
            assert ("event_of_task", "event_of_trace")[place - 1] in str(plan)
        plan = await db.fetch("EXPLAIN " + asked, 2990, 3000, *nothing)
        assert "Index Scan using event_pkey" in str(plan)
        plan = await db.fetch("EXPLAIN " + queries.FIRST_SINCE, first.at, 1, 3000)
        assert "Index Scan using event_pkey" in str(plan)
        assert "Seq Scan" not in str(plan)
