"""What an agent has claimed in advance goes to it with its dispatch, once, and only as long as it may have it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from common.lifecycle import Status
from common.messages import STANDING_SECONDS, AgentStatus, ResultStatus
from orchestrator.approvals.rules import ApprovalMismatch
from orchestrator.database.pool import Pool, open_pool
from orchestrator.dispatch.queries import STORE_FEW
from orchestrator.events.model import Kind
from orchestrator.leases.service import LeaseService
from orchestrator.outbox import queries as outbox
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.dispatch import IdempotencyConflict
from orchestrator.tasks.model import Identity
from orchestrator.tasks.service import TaskService
from tests.factories import make_claim, make_heartbeat, make_new_task, make_result
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import kinds_of
from tests.integration.orchestrator.standing_front import CLAIMED, Front, open_front, tickets_of
from tests.integration.orchestrator.test_shut_out import disable

pytestmark = pytest.mark.path_internals

PLANS = "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement = $1"


@pytest.fixture
async def front(pool: Pool, tasks: TaskService, registry: RegistryService) -> Front:
    return await open_front(pool, tasks, registry)


async def test_a_task_is_leased_to_the_agent_that_claimed_in_advance_with_its_dispatch(
    front: Front, pool: Pool
) -> None:
    [claim_id] = front.claim()
    task = make_new_task(parameters={"message": "grüße"})

    done = await front.dispatch(task)

    [(agent_id, grant)] = done.grants
    assert agent_id == front.agent_id
    assert grant.claim_id == claim_id
    assert (grant.attempt, grant.fence, grant.lease_seconds) == (1, 1, LEASE.total_seconds())
    assert grant.work.parameters == {"message": "grüße"}
    assert grant.ruled_digest == task.work_digest.hex()
    stored = await front.tasks.get(task.task_id)
    assert (stored.status, stored.agent_id, stored.claim_id) == (Status.RUNNING, front.agent_id, claim_id)
    assert await kinds_of(pool, task.task_id) == CLAIMED
    assert await tickets_of(pool) == set(), "nobody else is told of it"
    assert done.answers == [Identity(task.task_id, task.request_id, task.trace_id, task.digest)]


async def test_its_result_counts_like_any_other(front: Front, leases: LeaseService) -> None:
    front.claim()
    task = make_new_task()
    await front.dispatch(task)

    await leases.accept([make_result(task.task_id, front.agent_id)])

    assert (await front.tasks.get(task.task_id)).status is Status.COMPLETED


async def test_the_grant_is_the_same_that_a_claim_with_the_ticket_would_get(front: Front, leases: LeaseService) -> None:
    front.claim()
    first, second = make_new_task(), make_new_task()
    [(_, at_once)] = (await front.dispatch(first)).grants
    await front.dispatch(second)

    [answer] = await leases.claim([make_claim(second.task_id, agent_id=front.agent_id)])

    assert answer.grant is not None
    [claimed] = answer.grant.tasks
    ids = {"work", "claim_id", "trace_id", "request_id", "max_output_bytes"}
    assert at_once.model_dump(exclude=ids) == claimed.model_dump(exclude=ids)


async def test_a_claim_counts_for_one_task_and_the_most_urgent_gets_it(front: Front, pool: Pool) -> None:
    front.claim()
    normal, urgent = make_new_task(), make_new_task(priority=5)

    done = await front.dispatch(normal, urgent)

    assert [grant.work.task_id for _, grant in done.grants] == [urgent.task_id]
    assert await tickets_of(pool) == {normal.task_id}


async def test_what_was_dispatched_before_is_answered_the_same_and_leased_once(front: Front, pool: Pool) -> None:
    front.claim(2)
    task = make_new_task()
    first = await front.dispatch(task)

    again = await front.dispatch(task)

    assert again.answers == first.answers
    assert again.grants == []
    assert await kinds_of(pool, task.task_id) == CLAIMED


async def test_a_claim_that_a_known_task_does_not_need_stands_for_the_next(front: Front) -> None:
    task = make_new_task()
    await front.dispatch(task)
    front.claim()
    await front.dispatch(task)

    assert len((await front.dispatch(make_new_task())).grants) == 1


async def test_the_same_twice_in_one_call_is_leased_once(front: Front, pool: Pool) -> None:
    front.claim(2)
    task = make_new_task()

    done = await front.dispatch(task, task)

    assert done.answers[0] == done.answers[1]
    assert (await kinds_of(pool, task.task_id)).count(Kind.TASK_DISPATCHED) == 1
    assert len(done.grants) <= 1


async def test_an_id_that_is_taken_by_other_work_conflicts_and_the_others_are_stored(front: Front) -> None:
    front.claim(3)
    task, other = make_new_task(), make_new_task()
    await front.dispatch(task)

    done = await front.dispatch(make_new_task(task_id=task.task_id, parameters={"message": "bye"}), other)

    assert isinstance(done.answers[0], IdempotencyConflict)
    assert [grant.work.task_id for _, grant in done.grants] == [other.task_id]


async def test_many_callers_at_once_lease_each_task_once(front: Front, pool: Pool) -> None:
    front.standing.most = 100
    front.claim(40)
    made = [make_new_task() for _ in range(20)]

    done = await asyncio.gather(*(front.dispatch(task) for task in made * 2))

    granted = [grant.work.task_id for one in done for _, grant in one.grants]
    assert sorted(granted) == sorted(task.task_id for task in made)
    for task in made:
        assert await kinds_of(pool, task.task_id) == CLAIMED


Unfit = Callable[[Pool, RegistryService, UUID], Awaitable[object]]


async def paused(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET paused_until = $2, paused_by = 'ann' WHERE agent_id = $1", agent_id, until)


async def draining(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET draining = true WHERE agent_id = $1", agent_id)


async def tripped(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET tripped_until = now() WHERE agent_id = $1", agent_id)


async def leaving(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    await registry.record([make_heartbeat(agent_id, status=AgentStatus.DRAINING)])


async def shut_out(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    await disable(pool, agent_id)


async def of_another_type(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    async with pool.acquire() as db:
        await db.execute("DELETE FROM agent WHERE agent_id = $1", agent_id)
    await registry.record([make_heartbeat(agent_id, agent_type="desktop")])


async def without_an_executor(pool: Pool, registry: RegistryService, agent_id: UUID) -> None:
    await registry.record([make_heartbeat(agent_id, work_types=["shell_script"])])


@pytest.mark.parametrize("unfit", [paused, draining, tripped, leaving, shut_out, of_another_type, without_an_executor])
async def test_an_agent_that_may_not_have_it_does_not_get_it_and_others_may(
    front: Front, pool: Pool, registry: RegistryService, unfit: Unfit
) -> None:
    await unfit(pool, registry, front.agent_id)
    front.claim()
    task = make_new_task()

    done = await front.dispatch(task)

    assert done.grants == []
    assert done.left == [task], "the relay is told"
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED]
    async with pool.acquire() as db:
        assert [one.task_id for one in await outbox.best_due(db, "infra", limit=10, work_types=["echo"])] == [
            task.task_id
        ]


async def test_an_agent_that_never_registered_gets_nothing(front: Front, pool: Pool) -> None:
    front.claim(agent_id=uuid4())
    assert (await front.dispatch(make_new_task())).grants == []


@pytest.mark.parametrize("values", [{"ordering_key": "a"}, {"concurrency_key": "a", "concurrency_limit": 1}])
async def test_what_has_keys_goes_the_way_that_keeps_them(front: Front, pool: Pool, values: dict[str, Any]) -> None:
    front.claim()
    task = make_new_task(**values)
    assert (await front.dispatch(task)).grants == []
    assert await tickets_of(pool) == {task.task_id}


async def test_what_brings_an_approval_along_goes_the_way_that_checks_it(front: Front) -> None:
    front.claim()
    done = await front.dispatch(make_new_task(approval_id=uuid4()))
    assert done.grants == []
    assert isinstance(done.answers[0], ApprovalMismatch), "there is no such approval"


async def test_what_is_new_does_not_overtake_what_waits(front: Front, pool: Pool) -> None:
    front.room.found("infra", free=0, taken=0)
    front.claim()
    task = make_new_task(priority=5)

    assert (await front.dispatch(task)).grants == []
    assert await tickets_of(pool) == {task.task_id}


async def test_a_claim_counts_for_a_moment_only(front: Front) -> None:
    front.claim()
    front.now.seconds += STANDING_SECONDS
    assert (await front.dispatch(make_new_task())).grants == []


async def test_an_agent_has_no_more_claims_than_it_may(front: Front) -> None:
    for _ in range(4):
        front.claim(5)
    done = await front.dispatch(*(make_new_task() for _ in range(20)))
    assert len(done.grants) == front.standing.most
    front.claim(5)
    assert len((await front.dispatch(make_new_task())).grants) == 1, "those that were used do not count"


async def test_a_claim_that_comes_twice_counts_once(front: Front) -> None:
    [claim_id] = front.claim()
    front.standing.add(front.agent_id, "infra", [claim_id])
    done = await front.dispatch(make_new_task(), make_new_task())
    assert len(done.grants) == 1


async def test_who_takes_no_claims_in_advance_gives_nothing_for_them(front: Front, pool: Pool) -> None:
    front.standing.most = 0
    front.claim()
    task = make_new_task()

    assert (await front.dispatch(task)).grants == []
    assert await tickets_of(pool) == {task.task_id}


async def test_what_was_stored_goes_its_way_when_others_of_the_same_call_cannot_be(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> Any:
        raise asyncpg.DiskFullError("no space left")

    monkeypatch.setattr(front.tasks, "dispatch_at_once", full)
    front.claim()
    plain, keyed = make_new_task(), make_new_task(ordering_key="a")

    done = await front.dispatch(plain, keyed)

    assert [grant.work.task_id for _, grant in done.grants] == [plain.task_id]
    assert isinstance(done.answers[0], Identity)
    assert isinstance(done.answers[1], asyncpg.DiskFullError)
    with pytest.raises(asyncpg.DiskFullError):
        await front.dispatch(make_new_task(ordering_key="b"))


async def test_what_is_known_already_takes_no_place_in_the_window(front: Front) -> None:
    front.room.found("infra", free=1, taken=0)
    task = make_new_task()
    assert len((await front.dispatch(task)).tickets) == 1
    front.room.found("infra", free=1, taken=0)

    await front.dispatch(task)

    assert len((await front.dispatch(make_new_task())).tickets) == 1


async def test_a_task_that_failed_is_tried_again_as_ever(front: Front, leases: LeaseService, pool: Pool) -> None:
    front.claim()
    task = make_new_task(max_attempts=2)
    await front.dispatch(task)

    await leases.accept(
        [make_result(task.task_id, front.agent_id, status=ResultStatus.FAILED, retryable=True, exit_code=1)]
    )

    assert (await front.tasks.get(task.task_id)).status is Status.PENDING
    assert await tickets_of(pool) == {task.task_id}
    assert await kinds_of(pool, task.task_id) == [*CLAIMED, Kind.TASK_REQUEUED]


async def test_postgresql_keeps_the_plan_that_stores_few_tasks(
    tasks: TaskService, registry: RegistryService, ledger_url: str
) -> None:
    async with open_pool(ledger_url, connections=1) as pool:
        front = await open_front(pool, tasks, registry)
        for _ in range(8):
            front.claim()
            assert (await front.dispatch(make_new_task())).grants
        async with pool.acquire() as db:
            plans = await db.fetchrow(PLANS, STORE_FEW)

    assert plans is not None
    # Five are made for the values at hand before PostgreSQL compares.
    assert (plans["custom_plans"], plans["generic_plans"]) == (5, 3)
