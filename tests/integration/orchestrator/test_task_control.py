"""Whole traces are cancelled, and tasks that have ended are run again, on a real ledger."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from common.lifecycle import Status
from common.loop import Wake
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.leases.service import LeaseService
from orchestrator.outbox import queries as outbox
from orchestrator.policy.service import open_policy
from orchestrator.tasks import service
from orchestrator.tasks.control import TaskControl, TaskHasNotEnded
from orchestrator.tasks.dispatch import IdempotencyConflict
from orchestrator.tasks.service import TaskNotFound, TaskService, TraceNotFound
from tests.factories import ANN, make_new_task, make_result
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.ledger import kinds_of


@pytest.fixture
def control(tasks: TaskService) -> TaskControl:
    return TaskControl(tasks, open_policy(None), Wake())


async def completed(tasks: TaskService, leases: LeaseService, pool: Pool, **values: object) -> UUID:
    """Run a task to its end."""
    task, agent_id = make_new_task(**values), uuid4()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=agent_id)
    await leases.accept([make_result(task.task_id, agent_id)])
    return task.task_id


# Cancel a trace


async def test_every_task_of_a_trace_that_has_not_ended_is_cancelled(
    control: TaskControl, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    trace_id, agent_id = uuid4(), uuid4()
    ended = await completed(tasks, leases, pool, trace_id=trace_id)
    waiting, running, stranger = make_new_task(trace_id=trace_id), make_new_task(trace_id=trace_id), make_new_task()
    await tasks.dispatch([waiting, running, stranger], by="caller")
    await lease_to(pool, running.task_id, agent_id=agent_id)

    answer = await control.cancel_trace(trace_id, by="ann")

    assert answer.cancelled == sorted([waiting.task_id, running.task_id])
    assert answer.already_ended == 1
    for task_id in answer.cancelled:
        assert (await tasks.get(task_id)).status is Status.CANCELLED
        assert (await kinds_of(pool, task_id))[-1] == Kind.TASK_CANCELLED
    assert (await tasks.get(ended)).status is Status.COMPLETED
    assert (await tasks.get(stranger.task_id)).status is Status.PENDING
    async with pool.acquire() as db:
        [order] = await outbox.take_orders(db, limit=10, again_after=timedelta(hours=1))
    assert order.agent_id == agent_id
    assert order.body["payload"]["order"]["task_id"] == str(running.task_id)


async def test_a_trace_of_many_tasks_is_cancelled_some_at_a_time(
    control: TaskControl, tasks: TaskService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CANCELLED_AT_ONCE", 3)
    trace_id = uuid4()
    many = [make_new_task(trace_id=trace_id) for _ in range(10)]
    await tasks.dispatch(many, by="caller")

    answer = await control.cancel_trace(trace_id, by="ann")

    assert answer.cancelled == sorted(task.task_id for task in many)
    assert answer.already_ended == 0


async def test_a_trace_is_cancelled_once_also_by_many_at_the_same_time(
    control: TaskControl, tasks: TaskService, pool: Pool
) -> None:
    trace_id = uuid4()
    many = [make_new_task(trace_id=trace_id) for _ in range(20)]
    await tasks.dispatch(many, by="caller")

    answers = await asyncio.gather(*(control.cancel_trace(trace_id, by="ann") for _ in range(4)))

    assert sorted(task_id for answer in answers for task_id in answer.cancelled) == sorted(t.task_id for t in many)
    for task in many:
        assert (await kinds_of(pool, task.task_id)).count(Kind.TASK_CANCELLED) == 1


async def test_nothing_of_a_cancelled_trace_can_be_claimed(
    control: TaskControl, tasks: TaskService, pool: Pool
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    await control.cancel_trace(task.trace_id, by="ann")

    assert await lease_to(pool, task.task_id) == []


async def test_tasks_that_wait_for_others_of_their_key_are_cancelled_with_the_trace(
    control: TaskControl, tasks: TaskService
) -> None:
    trace_id = uuid4()
    chain = [make_new_task(trace_id=trace_id, ordering_key="web-1") for _ in range(3)]
    await tasks.dispatch(chain, by="caller")

    answer = await control.cancel_trace(trace_id, by="ann")

    assert len(answer.cancelled) == 3


async def test_a_trace_without_tasks_is_not_found(control: TaskControl) -> None:
    with pytest.raises(TraceNotFound):
        await control.cancel_trace(uuid4(), by="ann")


# Run again


async def test_a_rerun_is_a_new_task_with_the_same_content_that_names_the_old_one(
    control: TaskControl, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    old_id = await completed(
        tasks,
        leases,
        pool,
        priority=5,
        parameters={"message": "again"},
        max_attempts=3,
        expires_after=timedelta(minutes=7),
    )

    known = await control.rerun(old_id, by=ANN)

    old, new = await tasks.get(old_id), await tasks.get(known.task_id)
    assert new.task_id != old_id
    assert (new.rerun_of, new.status, new.attempt) == (old_id, Status.PENDING, 0)
    same = ("trace_id", "work_type", "agent_type", "parameters", "hints", "priority", "idempotent", "max_attempts")
    assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]
    assert new.expires_at is not None
    assert new.expires_at - new.created_at == timedelta(minutes=7)
    assert await kinds_of(pool, new.task_id) == [Kind.TASK_DISPATCHED]
    assert old.rerun_of is None


async def test_a_rerun_is_given_work_like_any_other(
    control: TaskControl, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    known = await control.rerun(await completed(tasks, leases, pool), by=ANN)

    [leased] = await lease_to(pool, known.task_id)

    assert leased.task.task_id == known.task_id


async def test_a_rerun_can_belong_to_another_trace(
    control: TaskControl, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    trace_id = uuid4()

    known = await control.rerun(await completed(tasks, leases, pool), trace_id=trace_id, by=ANN)

    assert (await tasks.get(known.task_id)).trace_id == known.trace_id == trace_id


async def test_a_rerun_that_is_sent_again_is_the_same_new_task(
    control: TaskControl, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    old_id, new_id, request_id = await completed(tasks, leases, pool), uuid4(), uuid4()

    first = await control.rerun(old_id, as_task=new_id, by=ANN)
    again = await control.rerun(old_id, as_task=new_id, by=ANN)
    by_request = [await control.rerun(old_id, request_id=request_id, by=ANN) for _ in range(2)]

    assert first == again
    assert first.task_id == new_id
    assert by_request[0] == by_request[1]


async def test_a_rerun_under_an_id_that_something_else_has_is_refused(
    control: TaskControl, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    old_id, other = await completed(tasks, leases, pool), make_new_task()
    await tasks.dispatch([other], by="caller")

    for taken in (old_id, other.task_id):
        with pytest.raises(IdempotencyConflict):
            await control.rerun(old_id, as_task=taken, by=ANN)


async def test_a_rerun_keeps_the_keys_and_the_limit_that_holds_now(
    control: TaskControl, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    old_id = await completed(tasks, leases, pool, ordering_key="web-1", concurrency_key="pulls", concurrency_limit=1)

    first, second = [await control.rerun(old_id, by=ANN) for _ in range(2)]

    assert [(await tasks.get(known.task_id)).admitted for known in (first, second)] == [True, False]
    again = await tasks.get(first.task_id)
    assert (again.ordering_key, again.concurrency_key) == ("web-1", "pulls")


async def test_only_a_task_that_has_ended_is_run_again(control: TaskControl, tasks: TaskService) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")

    with pytest.raises(TaskHasNotEnded, match="pending"):
        await control.rerun(task.task_id, by=ANN)
    with pytest.raises(TaskNotFound):
        await control.rerun(uuid4(), by=ANN)
