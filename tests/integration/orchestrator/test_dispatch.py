"""A dispatch is stored once, whole, and answered the same again."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.lifecycle import Status
from common.messages import AgentStatus
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.leases.service import LeaseService
from orchestrator.tasks.dispatch import IdempotencyConflict
from orchestrator.tasks.model import Identity, TaskFilter
from orchestrator.tasks.service import TaskHasEnded, TaskNotFound, TaskService
from tests.factories import make_new_task, make_result
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.ledger import events_of, kinds_of


async def test_a_dispatch_writes_task_and_event_in_one_transaction(tasks: TaskService, pool: Pool) -> None:
    task = make_new_task()

    [answer] = await tasks.dispatch([task], by="caller")

    assert isinstance(answer, Identity)
    assert (await tasks.get(task.task_id)).status is Status.PENDING
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED]


async def test_nothing_is_stored_when_any_part_of_a_dispatch_fails(
    tasks: TaskService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr("orchestrator.tasks.service.events.append", fail)
    task = make_new_task()

    with pytest.raises(ConnectionError):
        await tasks.dispatch([task], by="caller")

    with pytest.raises(TaskNotFound):
        await tasks.get(task.task_id)
    assert await events_of(pool) == []


async def test_the_same_dispatch_gets_the_same_answer(tasks: TaskService, pool: Pool) -> None:
    task = make_new_task()
    first = await tasks.dispatch([task], by="caller")

    again = await tasks.dispatch([task], by="caller")
    by_task_id = await tasks.dispatch([make_new_task(task_id=task.task_id)], by="caller")
    by_request_id = await tasks.dispatch([make_new_task(request_id=task.request_id)], by="caller")

    assert first == again == by_task_id == by_request_id
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED]


@pytest.mark.parametrize(
    "change",
    [
        {"work_type": "shell_script"},
        {"parameters": {"message": "other"}},
        {"priority": 5},
        {"hints": {"agent_type": "infra"}},
        {"idempotent": True},
        {"max_attempts": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["task_id", "request_id"])
async def test_an_id_that_is_taken_by_other_content_is_a_conflict(
    tasks: TaskService, key: str, change: dict[str, object]
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")

    [answer] = await tasks.dispatch([make_new_task(**{key: getattr(task, key), **change})], by="caller")

    assert isinstance(answer, IdempotencyConflict)
    assert key in str(answer)


async def test_two_ids_of_different_tasks_are_a_conflict(tasks: TaskService) -> None:
    one, other = make_new_task(), make_new_task()
    await tasks.dispatch([one, other], by="caller")

    [answer] = await tasks.dispatch([make_new_task(task_id=one.task_id, request_id=other.request_id)], by="caller")

    assert isinstance(answer, IdempotencyConflict)


async def test_the_same_task_twice_in_one_call_is_stored_once(tasks: TaskService, pool: Pool) -> None:
    task = make_new_task()
    other = make_new_task(task_id=task.task_id, parameters={"message": "other"})

    answers = await tasks.dispatch([task, task, other], by="caller")

    assert answers[0] == answers[1]
    assert isinstance(answers[2], IdempotencyConflict)
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED]


async def test_of_two_dispatches_of_one_task_id_in_one_call_the_one_whose_ids_are_free_is_stored_as_it_is(
    tasks: TaskService,
) -> None:
    other = make_new_task()
    await tasks.dispatch([other], by="caller")
    taken = make_new_task(request_id=other.request_id, priority=5, parameters={"message": "mine"})
    free = make_new_task(task_id=taken.task_id, priority=2)

    answers = await tasks.dispatch([taken, free], by="caller")

    assert isinstance(answers[0], IdempotencyConflict)
    assert answers[1] == Identity(free.task_id, free.request_id, free.trace_id, free.digest)
    stored = await tasks.get(free.task_id)
    assert (stored.priority, stored.request_id, stored.parameters) == (2, free.request_id, free.parameters)


async def test_the_same_dispatch_at_the_same_moment_is_stored_once(tasks: TaskService, pool: Pool) -> None:
    task = make_new_task()

    answers = await asyncio.gather(*(tasks.dispatch([task], by="caller") for _ in range(20)))

    assert len({answer[0].request_id for answer in answers if isinstance(answer[0], Identity)}) == 1
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED]


async def test_events_have_no_gaps_and_rise_in_the_order_of_commits(tasks: TaskService, pool: Pool) -> None:
    await asyncio.gather(*(tasks.dispatch([make_new_task()], by="caller") for _ in range(50)))

    events = await events_of(pool)

    assert [event.seq for event in events] == list(range(1, 51))
    assert [event.at for event in events] == sorted(event.at for event in events)


async def test_a_pending_task_is_cancelled_at_once_and_goes_to_nobody(tasks: TaskService, pool: Pool) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")

    await tasks.cancel(task.task_id, by="caller")

    assert (await tasks.get(task.task_id)).status is Status.CANCELLED
    assert await lease_to(pool, task.task_id) == []


async def test_a_running_task_is_cancelled_and_its_agent_is_told(tasks: TaskService, pool: Pool) -> None:
    task, agent_id = make_new_task(), uuid4()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=agent_id)

    await tasks.cancel(task.task_id, by="caller")

    found = await tasks.get(task.task_id)
    assert (found.status, found.attempt) == (Status.CANCELLED, 1)
    async with pool.acquire() as db:
        order = await db.fetchrow("SELECT recipient, body FROM outbox")
    assert order is not None
    assert order["recipient"] == str(agent_id)
    assert order["body"]["payload"]["order"] == {"action": "cancel", "task_id": str(task.task_id), "attempt": 1}


async def test_a_task_that_has_ended_cannot_be_cancelled(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    task, agent_id = make_new_task(), uuid4()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=agent_id)
    await leases.accept([make_result(task.task_id, agent_id)])

    with pytest.raises(TaskHasEnded) as caught:
        await tasks.cancel(task.task_id, by="caller")

    assert isinstance(caught.value, ValueError)


async def test_tasks_are_listed_newest_first_page_by_page_without_repetition(tasks: TaskService) -> None:
    made = [make_new_task() for _ in range(7)]
    await tasks.dispatch(made[:4], by="caller")
    await tasks.dispatch(made[4:], by="caller")

    seen, before = [], None
    while page := (await tasks.newest(TaskFilter(before=before), limit=3)).rows:
        seen += [task.task_id for task in page]
        before = (page[-1].created_at, page[-1].task_id)

    assert sorted(seen) == sorted(task.task_id for task in made)
    assert set(seen[:3]) == {task.task_id for task in made[4:]}


async def test_tasks_are_listed_by_what_is_asked_for(tasks: TaskService) -> None:
    wanted, other = make_new_task(work_type="shell_script"), make_new_task()
    await tasks.dispatch([wanted, other], by="caller")
    await tasks.cancel(other.task_id, by="caller")

    async def ids(**filters: Any) -> set[UUID]:
        return {task.task_id for task in (await tasks.newest(TaskFilter(**filters), limit=10)).rows}

    assert await ids(work_type="shell_script") == {wanted.task_id}
    assert await ids(statuses=[Status.CANCELLED]) == {other.task_id}
    assert await ids(trace_id=wanted.trace_id) == {wanted.task_id}
    assert await ids(agent_type="desktop") == set()
    assert await ids(agent_id=uuid4()) == set()


def test_the_words_of_the_registry_are_those_of_the_messages() -> None:
    assert [status.value for status in AgentStatus] == ["online", "busy", "draining", "offline"]
