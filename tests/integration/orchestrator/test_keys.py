"""Tasks of one ordering key go one after another, those of a concurrency key within its limit, and nothing strands."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from common.lifecycle import Status
from common.messages import ResultStatus
from orchestrator.database.pool import Pool
from orchestrator.keys.service import KeyService
from orchestrator.leases.service import LeaseService
from orchestrator.tasks.model import NewTask
from orchestrator.tasks.service import TaskService
from tests.factories import make_new_task, make_result
from tests.integration.ledger import lease_to, register
from tests.integration.orchestrator.ledger import let_leases_run_out
from tests.integration.orchestrator.on_credit import gets


def ordered(key: str = "web-1", **values: Any) -> NewTask:
    return make_new_task(ordering_key=key, **values)


def limited(at_most: int, key: str = "pulls", **values: Any) -> NewTask:
    return make_new_task(concurrency_key=key, concurrency_limit=at_most, **values)


async def on_the_way(pool: Pool) -> list[UUID]:
    """Return the tasks that may be given to agents, in the order in which they were dispatched."""
    async with pool.acquire() as db:
        rows = await db.fetch("SELECT task_id FROM task WHERE status = 'pending' AND admitted ORDER BY dispatch_no")
    return [row["task_id"] for row in rows]


async def start(pool: Pool, task_id: UUID) -> UUID:
    """Lease a task to an agent and return the agent."""
    agent_id = uuid4()
    [_] = await lease_to(pool, task_id, agent_id=agent_id)
    return agent_id


async def run(leases: LeaseService, pool: Pool, task_id: UUID, **result: Any) -> None:
    """Let an agent run a task to its end."""
    await leases.accept([make_result(task_id, await start(pool, task_id), **result)])


def ids(tasks: list[NewTask]) -> list[UUID]:
    return [task.task_id for task in tasks]


async def test_a_batch_is_numbered_in_the_order_of_the_request(tasks: TaskService, pool: Pool) -> None:
    made = [ordered() if number % 2 else make_new_task() for number in range(500)]

    await tasks.dispatch(made, by="caller")

    async with pool.acquire() as db:
        rows = await db.fetch("SELECT task_id FROM task ORDER BY dispatch_no")
    assert [row["task_id"] for row in rows] == ids(made)


async def test_the_next_of_an_ordering_key_goes_when_the_one_before_has_ended(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    made = [ordered() for _ in range(3)]
    await tasks.dispatch(made, by="caller")

    for position, task in enumerate(made):
        assert await on_the_way(pool) == [task.task_id]
        status = [ResultStatus.COMPLETED, ResultStatus.FAILED, ResultStatus.CANCELLED][position]
        await run(leases, pool, task.task_id, status=status)

    assert await on_the_way(pool) == []


async def test_priority_does_not_change_the_order_of_an_ordering_key(tasks: TaskService, pool: Pool) -> None:
    first, second = ordered(priority=1), ordered(priority=5)
    await tasks.dispatch([first], by="caller")
    await tasks.dispatch([second], by="caller")

    assert await on_the_way(pool) == [first.task_id]


async def test_of_a_batch_the_first_of_an_ordering_key_goes_first_whatever_its_priority(
    tasks: TaskService, pool: Pool
) -> None:
    made = [ordered(priority=priority) for priority in (1, 5, 3)]

    await tasks.dispatch(made, by="caller")

    assert await on_the_way(pool) == [made[0].task_id]


async def test_other_keys_and_tasks_without_a_key_go_side_by_side(tasks: TaskService, pool: Pool) -> None:
    made = [ordered("a"), ordered("b"), make_new_task(), ordered("c")]
    await tasks.dispatch([*made, ordered("a"), ordered("b")], by="caller")

    assert await on_the_way(pool) == ids(made)


async def test_a_retry_keeps_its_place(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    first, second = ordered(max_attempts=2), ordered()
    await tasks.dispatch([first, second], by="caller")

    await run(leases, pool, first.task_id, status=ResultStatus.FAILED, retryable=True)

    assert await on_the_way(pool) == [first.task_id]
    agent_id = await start(pool, first.task_id)
    await leases.accept([make_result(first.task_id, agent_id, attempt=2)])
    assert await on_the_way(pool) == [second.task_id]


async def test_a_lost_agent_lets_the_next_go_when_no_attempt_remains(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    first, second = ordered(), ordered()
    await tasks.dispatch([first, second], by="caller")
    await start(pool, first.task_id)
    await let_leases_run_out(pool)

    await leases.reap(limit=10)

    assert await on_the_way(pool) == [second.task_id]


async def test_a_cancel_lets_the_next_go_and_one_from_the_middle_leaves_no_gap(tasks: TaskService, pool: Pool) -> None:
    first, second, third = made = [ordered() for _ in range(3)]
    await tasks.dispatch(made, by="caller")

    await tasks.cancel(second.task_id, by="caller")
    assert await on_the_way(pool) == [first.task_id]
    await tasks.cancel(first.task_id, by="caller")

    assert await on_the_way(pool) == [third.task_id]


@pytest.mark.parametrize("says", list(ResultStatus))
async def test_after_the_cancel_of_one_that_runs_the_next_goes_when_its_agent_says_that_it_is_stopped(
    tasks: TaskService, leases: LeaseService, pool: Pool, says: ResultStatus
) -> None:
    first, second = limited(1, ordering_key="web-1"), limited(1, ordering_key="web-1")
    await tasks.dispatch([first, second], by="caller")
    agent_id = await start(pool, first.task_id)
    await tasks.cancel(first.task_id, by="caller")
    assert (await tasks.get(first.task_id)).status is Status.CANCELLED

    await leases.accept([make_result(first.task_id, uuid4(), status=says)])
    assert await on_the_way(pool) == []
    await leases.accept([make_result(first.task_id, agent_id, status=says)])

    assert await on_the_way(pool) == [second.task_id]


@pytest.mark.parametrize(
    "key", [{"ordering_key": "web-1"}, {"concurrency_key": "pulls", "concurrency_limit": 1}], ids=["ordering", "limit"]
)
async def test_the_key_of_a_cancelled_task_is_not_free_before_its_agent_has_stopped_it(
    tasks: TaskService, leases: LeaseService, pool: Pool, key: dict[str, Any]
) -> None:
    first, second = make_new_task(**key), make_new_task(**key)
    await tasks.dispatch([first, second], by="caller")
    agent_id = await start(pool, first.task_id)

    await tasks.cancel(first.task_id, by="caller")
    at_once = await on_the_way(pool)
    await leases.accept([make_result(first.task_id, agent_id, status=ResultStatus.CANCELLED)])

    assert at_once == []
    assert await on_the_way(pool) == [second.task_id]


async def test_what_an_agent_says_late_of_an_earlier_attempt_frees_no_key(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    first, second = ordered(max_attempts=2), ordered()
    await tasks.dispatch([first, second], by="caller")
    agent_id = await start(pool, first.task_id)
    await let_leases_run_out(pool)
    await leases.reap(limit=10)
    [_] = await lease_to(pool, first.task_id, agent_id=agent_id)
    await tasks.cancel(first.task_id, by="caller")

    await leases.accept([make_result(first.task_id, agent_id, attempt=1)])

    assert await on_the_way(pool) == []


async def test_after_the_cancel_of_one_whose_agent_says_nothing_the_next_goes_when_its_lease_is_over_and_not_before(
    tasks: TaskService, pool: Pool
) -> None:
    keys, freed = KeyService(pool), list[int]()
    made = [limited(2), limited(2), limited(2)]
    await tasks.dispatch(made, by="caller")
    for task, lease in zip(made, (timedelta(seconds=30), timedelta(0)), strict=False):
        await lease_to(pool, task.task_id, lease=lease)
        await tasks.cancel(task.task_id, by="caller")
        freed.append(await keys.free_overdue(limit=10))

    assert freed == [0, 1]
    assert await on_the_way(pool) == [made[2].task_id]


async def test_a_task_that_is_not_admitted_cannot_be_claimed(tasks: TaskService, pool: Pool) -> None:
    first, second = ordered(), ordered()
    await tasks.dispatch([first, second], by="caller")

    assert await lease_to(pool, second.task_id) == []
    registered = uuid4()
    await register(pool, registered)
    assert await gets(pool, registered, room=8) == [first.task_id]


async def test_no_more_than_the_limit_of_a_concurrency_key_are_on_the_way(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    made = [limited(2) for _ in range(5)]
    await tasks.dispatch(made, by="caller")
    assert await on_the_way(pool) == ids(made[:2])

    await run(leases, pool, made[1].task_id)

    assert await on_the_way(pool) == [made[0].task_id, made[2].task_id]


async def test_those_of_a_concurrency_key_go_by_priority_then_in_the_order_of_dispatch(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    made = [limited(1, priority=priority) for priority in (3, 1, 5, 3, 5)]
    await tasks.dispatch(made[:1], by="caller")
    await tasks.dispatch(made[1:], by="caller")

    for expected in (0, 2, 4, 3, 1):
        assert await on_the_way(pool) == [made[expected].task_id]
        await run(leases, pool, made[expected].task_id)


async def test_a_higher_limit_lets_more_go_at_once(tasks: TaskService, pool: Pool) -> None:
    made = [limited(1), limited(1), limited(1), limited(3)]

    await tasks.dispatch(made[:3], by="caller")
    await tasks.dispatch(made[3:], by="caller")

    assert await on_the_way(pool) == ids(made[:3])


async def test_a_lower_limit_holds_back_who_was_not_claimed_yet_and_strands_nobody(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    made = [limited(4, priority=priority) for priority in (1, 2, 3, 4)]
    await tasks.dispatch(made, by="caller")
    agent_id = await start(pool, made[0].task_id)

    await tasks.dispatch([limited(2)], by="caller")
    assert await on_the_way(pool) == [made[3].task_id]
    assert await lease_to(pool, made[1].task_id) == []

    await leases.accept([make_result(made[0].task_id, agent_id)])
    assert await on_the_way(pool) == ids(made[2:4])
    while waiting := await on_the_way(pool):
        await run(leases, pool, waiting[0])
    assert {(await tasks.get(task.task_id)).status for task in made} == {Status.COMPLETED}


async def test_what_still_stops_takes_room_of_a_lower_limit_too(tasks: TaskService, pool: Pool) -> None:
    made = [limited(3) for _ in range(3)]
    await tasks.dispatch(made, by="caller")
    await start(pool, made[0].task_id)
    await tasks.cancel(made[0].task_id, by="caller")

    await tasks.dispatch([limited(2)], by="caller")

    assert await on_the_way(pool) == [made[1].task_id]


async def test_a_lower_limit_takes_no_place_away_for_a_task_that_waits(tasks: TaskService, pool: Pool) -> None:
    made = [limited(3, priority=priority) for priority in (1, 2, 3)]
    await tasks.dispatch(made, by="caller")
    await tasks.dispatch([limited(3, priority=5)], by="caller")

    await tasks.dispatch([limited(2)], by="caller")

    assert await on_the_way(pool) == ids(made[1:])


async def test_a_retry_is_not_held_back_by_a_lower_limit(tasks: TaskService, leases: LeaseService, pool: Pool) -> None:
    made = [limited(2, max_attempts=2), limited(2, max_attempts=2)]
    await tasks.dispatch(made, by="caller")
    for task in made:
        await run(leases, pool, task.task_id, status=ResultStatus.FAILED, retryable=True)

    await tasks.dispatch([limited(1)], by="caller")

    assert await on_the_way(pool) == ids(made)


async def test_the_same_dispatch_again_does_not_change_the_limit(tasks: TaskService, pool: Pool) -> None:
    first, second = limited(1), limited(2)
    await tasks.dispatch([first], by="caller")
    await tasks.dispatch([second], by="caller")

    await tasks.dispatch([first], by="caller")

    assert await on_the_way(pool) == ids([first, second])


async def test_a_task_with_both_keys_goes_when_both_allow_it(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    other = limited(1)
    first, second = (limited(1, ordering_key="web-1") for _ in range(2))
    await tasks.dispatch([other, first, second], by="caller")
    assert await on_the_way(pool) == [other.task_id]

    await run(leases, pool, other.task_id)
    assert await on_the_way(pool) == [first.task_id]
    await run(leases, pool, first.task_id)
    assert await on_the_way(pool) == [second.task_id]


async def test_the_next_of_an_ordering_key_also_keeps_the_limit_of_a_key_that_only_it_has(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    busy = limited(1, "other")
    first, second = ordered(), limited(1, "other", ordering_key="web-1")
    await tasks.dispatch([busy, first, second], by="caller")

    await run(leases, pool, first.task_id)
    assert await on_the_way(pool) == [busy.task_id]
    await run(leases, pool, busy.task_id)

    assert await on_the_way(pool) == [second.task_id]


async def test_a_task_that_waited_too_long_is_cancelled_with_the_reason_and_the_next_goes(
    tasks: TaskService, pool: Pool
) -> None:
    late, next_one = ordered(expires_after=timedelta(seconds=90)), ordered()
    patient = make_new_task(expires_after=timedelta(days=30))
    await tasks.dispatch([late, next_one, patient], by="caller")
    await let_pass(pool, late.task_id)

    assert await lease_to(pool, late.task_id) == []
    assert await tasks.expire(limit=10) == 1
    assert await tasks.expire(limit=10) == 0

    found = await tasks.get(late.task_id)
    assert (found.status, found.error_code) == (Status.CANCELLED, 5001)
    assert found.error_message == "expired: waited longer than 90 s"
    assert await on_the_way(pool) == ids([next_one, patient])


async def test_a_task_that_waits_behind_others_expires_too(tasks: TaskService, pool: Pool) -> None:
    first, late, last = ordered(), ordered(expires_after=timedelta(seconds=1)), ordered()
    await tasks.dispatch([first, late, last], by="caller")
    await let_pass(pool, late.task_id)

    assert await tasks.expire(limit=10) == 1

    assert await on_the_way(pool) == [first.task_id]


async def test_a_task_that_runs_does_not_expire(tasks: TaskService, pool: Pool) -> None:
    task = make_new_task(expires_after=timedelta(seconds=1))
    await tasks.dispatch([task], by="caller")
    await start(pool, task.task_id)
    await let_pass(pool, task.task_id)

    assert await tasks.expire(limit=10) == 0


async def let_pass(pool: Pool, task_id: UUID) -> None:
    """Move a task's dispatch and the end of its waiting into the past."""
    statement = """
        UPDATE task SET expires_at = expires_at - interval '1 hour', created_at = created_at - interval '1 hour'
         WHERE task_id = $1
    """
    async with pool.acquire() as db:
        await db.execute(statement, task_id)


async def test_the_database_itself_refuses_a_second_one_of_an_ordering_key_on_the_way(
    tasks: TaskService, pool: Pool
) -> None:
    first, second = ordered(), ordered()
    await tasks.dispatch([first, second], by="caller")
    admit = "UPDATE task SET first_in_order = true, admitted = true WHERE task_id = $1"

    async with pool.acquire() as db:
        with pytest.raises(asyncpg.UniqueViolationError, match="task_one_admitted_of_an_ordering_key"):
            await db.execute(admit, second.task_id)


@pytest.mark.parametrize(
    "change",
    [
        {"ordering_key": "other"},
        {"ordering_key": None},
        {"concurrency_key": "other"},
        {"concurrency_limit": 2},
        {"expires_after": timedelta(seconds=2)},
        {"expires_after": None},
    ],
    ids=str,
)
def test_keys_and_limits_are_part_of_what_is_asked_for(change: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        "ordering_key": "web-1",
        "concurrency_key": "pulls",
        "concurrency_limit": 1,
        "expires_after": timedelta(seconds=1),
    }

    assert make_new_task(**given).digest == make_new_task(**given).digest
    assert make_new_task(**given).digest != make_new_task(**{**given, **change}).digest
