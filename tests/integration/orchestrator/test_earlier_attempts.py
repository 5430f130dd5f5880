"""The number of an attempt is its fencing token: what comes late of an earlier one changes nothing."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from common.lifecycle import Status
from common.messages import Lease, ResultStatus, Stream
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.leases.rules import Stale
from orchestrator.leases.service import LeaseService
from orchestrator.output.service import OutputService
from orchestrator.tasks.service import TaskService
from tests.factories import make_chunk, make_renewal, make_result, make_status
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.ledger import events_of, kinds_of, let_leases_run_out
from tests.integration.orchestrator.test_leases import running

Twice = tuple[UUID, UUID]
END_OF_LEASE = "SELECT lease_expires_at FROM task WHERE task_id = $1"


@pytest.fixture
async def twice(tasks: TaskService, leases: LeaseService, pool: Pool) -> Twice:
    """A task whose first attempt an agent lost, and whose second it runs."""
    task_id, agent_id = await running(tasks, pool, max_attempts=3)
    await let_leases_run_out(pool)
    assert await leases.reap(limit=1) == 1
    [_] = await lease_to(pool, task_id, agent_id=agent_id)
    return task_id, agent_id


async def test_every_lease_of_a_task_has_a_higher_number(
    tasks: TaskService, leases: LeaseService, twice: Twice, pool: Pool
) -> None:
    assert (await tasks.get(twice[0])).attempt == 2
    await let_leases_run_out(pool)
    await leases.reap(limit=1)
    await lease_to(pool, twice[0])

    assert (await tasks.get(twice[0])).attempt == 3
    claims = [event.attempt for event in await events_of(pool) if event.kind == Kind.TASK_CLAIMED]
    assert claims == [1, 2, 3]


@pytest.mark.parametrize(
    "says",
    [
        {"status": ResultStatus.COMPLETED},
        {"status": ResultStatus.CANCELLED},
        {"status": ResultStatus.FAILED},
        {"status": ResultStatus.FAILED, "retryable": True},
        {"status": ResultStatus.FAILED, "started": False},
    ],
    ids=["completed", "cancelled", "failed", "to be tried again", "handed back"],
)
async def test_a_late_result_of_an_earlier_attempt_of_the_same_agent_changes_nothing(
    tasks: TaskService, leases: LeaseService, twice: Twice, pool: Pool, says: dict[str, Any]
) -> None:
    [verdict] = await leases.accept([make_result(*twice, attempt=1, **says)])

    assert verdict == Stale("the attempt has ended: lost")
    task = await tasks.get(twice[0])
    assert (task.status, task.attempt, task.starts) == (Status.RUNNING, 2, 2)
    assert (await kinds_of(pool, twice[0]))[-1] == Kind.TASK_RESULT_REFUSED


async def test_late_output_of_an_earlier_attempt_is_kept_with_that_attempt(output: OutputService, twice: Twice) -> None:
    await output.store([make_status(*twice, make_chunk(0, "late", offset=0), attempt=1)])
    await output.store([make_status(*twice, make_chunk(0, "new", offset=0), attempt=2)])

    for attempt, text in ((1, "late"), (2, "new"), (None, "new")):
        page = await output.read(twice[0], attempt=attempt, stream=Stream.STDOUT, offset=0, limit=100)
        assert page.text == text


async def test_output_that_comes_with_a_late_result_is_kept_with_that_attempt(
    tasks: TaskService, leases: LeaseService, output: OutputService, twice: Twice
) -> None:
    await leases.accept([make_result(*twice, attempt=1, chunks=[make_chunk(0, "late", offset=0)])])

    page = await output.read(twice[0], attempt=2, stream=Stream.STDOUT, offset=0, limit=100)
    assert page.text == ""
    assert (await tasks.get(twice[0])).output == ""


async def test_late_progress_of_an_earlier_attempt_of_the_same_agent_changes_nothing(
    tasks: TaskService, output: OutputService, twice: Twice, pool: Pool
) -> None:
    await output.store([make_status(*twice, attempt=2, progress="5% of the second")])

    await output.store([make_status(*twice, attempt=1, progress="95% of the first")])

    assert (await tasks.get(twice[0])).progress == "5% of the second"
    assert (await kinds_of(pool, twice[0])).count(Kind.TASK_PROGRESS) == 1


async def test_a_late_renewal_of_an_earlier_attempt_of_the_same_agent_prolongs_nothing(
    leases: LeaseService, twice: Twice, pool: Pool
) -> None:
    async with pool.acquire() as db:
        await db.execute("UPDATE task SET lease_expires_at = now() + interval '1 second'")
        before = await db.fetchval(END_OF_LEASE, twice[0])

    [(_, renewed)] = await leases.renew([make_renewal(*twice, attempt=1)])

    assert (renewed.kept, renewed.lost) == ([], [Lease(task_id=twice[0], attempt=1)])
    async with pool.acquire() as db:
        assert await db.fetchval(END_OF_LEASE, twice[0]) == before


async def test_an_agent_that_stopped_an_earlier_attempt_has_not_stopped_the_one_that_was_cancelled(
    tasks: TaskService, leases: LeaseService, twice: Twice, pool: Pool
) -> None:
    await tasks.cancel(twice[0], by="caller")

    early = await leases.accept([make_result(*twice, attempt=1, status=ResultStatus.CANCELLED)])
    assert early == [Stale("the attempt has ended: lost")]
    await leases.accept([make_result(*twice, attempt=2, status=ResultStatus.CANCELLED)])

    assert (await kinds_of(pool, twice[0]))[-2:] == [Kind.TASK_RESULT_REFUSED, Kind.TASK_STOPPED]


async def test_a_second_other_result_of_an_attempt_is_noted_as_refused(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool)
    await leases.accept([make_result(task_id, agent_id)])

    [verdict] = await leases.accept([make_result(task_id, agent_id, status=ResultStatus.FAILED)])

    assert verdict == Stale("the attempt has ended: completed")
    assert (await tasks.get(task_id)).status is Status.COMPLETED
    assert (await kinds_of(pool, task_id))[-1] == Kind.TASK_RESULT_REFUSED


async def test_an_attempt_that_was_never_made_has_no_result(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool)

    verdicts = await leases.accept([make_result(task_id, agent_id, attempt=2), make_result(uuid4(), agent_id)])

    assert verdicts == [Stale("there is no such attempt")] * 2
    assert (await tasks.get(task_id)).status is Status.RUNNING
