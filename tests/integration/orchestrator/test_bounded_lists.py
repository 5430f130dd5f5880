"""No list grows with what its rows hold: a page ends early, and the next goes on behind it."""

from uuid import UUID

import pytest

from orchestrator.audit import queries as audit
from orchestrator.audit.model import Question
from orchestrator.database.pool import Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.tasks import queries
from orchestrator.tasks.model import TaskFilter
from orchestrator.tasks.service import TaskService
from tests.factories import make_new_task

HUNDRED_KB = {"text": "x" * 100_000}


async def test_a_page_of_large_tasks_ends_early_and_pages_show_each_task_once(tasks: TaskService, pool: Pool) -> None:
    made = [make_new_task(parameters=HUNDRED_KB) for _ in range(7)]
    await tasks.dispatch(made, by="caller")

    seen: list[UUID] = []
    sizes = []
    before, more = None, True
    while more:
        async with pool.acquire() as db:
            page = await queries.newest(db, TaskFilter(before=before), limit=5, most_bytes=250_000)
        seen += [task.task_id for task in page.rows]
        sizes.append(len(page.rows))
        before, more = (page.rows[-1].created_at, page.rows[-1].task_id), page.has_more

    assert sizes == [3, 3, 1]
    assert sorted(seen) == sorted(task.task_id for task in made)


async def test_a_task_that_is_larger_than_a_page_is_a_page(tasks: TaskService, pool: Pool) -> None:
    await tasks.dispatch([make_new_task(parameters=HUNDRED_KB) for _ in range(2)], by="caller")

    async with pool.acquire() as db:
        page = await queries.newest(db, TaskFilter(), limit=5, most_bytes=10)

    assert (len(page.rows), page.has_more) == (1, True)


@pytest.mark.parametrize(("limit", "has_more"), [(2, True), (3, False)])
async def test_small_tasks_fill_a_page_to_its_limit(tasks: TaskService, pool: Pool, limit: int, has_more: bool) -> None:
    await tasks.dispatch([make_new_task() for _ in range(3)], by="caller")

    async with pool.acquire() as db:
        page = await queries.newest(db, TaskFilter(), limit=limit)

    assert (len(page.rows), page.has_more) == (limit, has_more)


async def test_a_page_of_large_events_ends_early_and_pages_show_each_event_once(pool: Pool) -> None:
    async with transaction(pool) as db:
        await events.append(db, *(NewEvent(Kind.TASK_PROGRESS, "test", HUNDRED_KB) for _ in range(7)))

    seen: list[int] = []
    sizes = []
    after, more = 0, True
    while more:
        async with pool.acquire() as db:
            page = await events.follow(db, after=after, until=events.NEWEST, limit=5, most_bytes=250_000)
        seen += [event.seq for event in page.rows]
        sizes.append(len(page.rows))
        after, more = page.rows[-1].seq, page.has_more

    assert sizes == [3, 3, 1]
    assert seen == list(range(seen[0], seen[0] + 7))


async def test_a_page_of_the_audit_log_ends_early(pool: Pool) -> None:
    async with transaction(pool) as db:
        await events.append(db, *(NewEvent(Kind.TASK_PROGRESS, "test", HUNDRED_KB) for _ in range(4)))

    async with pool.acquire() as db:
        page = await audit.ask(db, Question(), after=0, until=events.NEWEST, limit=10, most_bytes=150_000)

    assert (len(page.rows), page.has_more) == (2, True)
