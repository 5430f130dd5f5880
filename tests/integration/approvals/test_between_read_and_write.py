"""What changes an approval between the read and the write of another counts: nothing is decided or used twice."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

import pytest

from common.errors import ErrorCode
from common.lifecycle import Status
from common.rest.approvals import ApprovalState
from orchestrator.approvals import queries
from orchestrator.approvals.model import Approval
from orchestrator.approvals.rules import ApprovalMismatch, ApprovalNotPossible
from orchestrator.approvals.service import ApprovalService
from orchestrator.database.pool import Pool, transaction
from orchestrator.identities.model import Caller
from orchestrator.keys import admission
from orchestrator.leases import queries as lease_queries
from orchestrator.tasks.model import Identity, NewTask
from orchestrator.tasks.service import TaskService
from tests.eventually import eventually
from tests.integration.approvals.conftest import (
    approval_of,
    approval_service,
    given,
    make_approver,
    make_risky_task,
    on_the_way,
)
from tests.integration.orchestrator.ledger import kinds_of
from tests.integration.orchestrator.test_plain import before, waits

Answer = TypeVar("Answer")

TIME_TO_ANSWER_IS_OVER = "UPDATE approval SET expires_at = clock_timestamp()"
TIME_TO_BEGIN_IS_OVER = "UPDATE approval SET valid_until = clock_timestamp()"


class Meanwhile:
    """Something that begins while a transaction holds rows, and goes on as far as those rows let it."""

    def __init__(self, pool: Pool, act: Coroutine[Any, Any, Any]) -> None:
        self._pool = pool
        self._act = act
        self._task: asyncio.Task[Any] | None = None

    async def begins(self) -> None:
        """Return when it is over, or waits for a row."""
        self._task = asyncio.create_task(self._act)
        await eventually(self._is_over_or_waits)

    async def ends(self) -> Any:
        """Return what it returned or raised."""
        assert self._task is not None, "it never began"
        answers = await asyncio.gather(self._task, return_exceptions=True)
        return answers[0]

    async def _is_over_or_waits(self) -> bool:
        assert self._task is not None
        return self._task.done() or await waits(self._pool)


async def asked(approvals: ApprovalService, asker: Caller) -> UUID:
    """Ask beforehand; no task waits for the answer."""
    return (await approvals.request("echo", {"message": "hello"}, {}, by=asker)).approval.approval_id


async def approved(approvals: ApprovalService, asker: Caller) -> UUID:
    approval_id = await asked(approvals, asker)
    await approvals.approve(approval_id, by=make_approver("ann"))
    return approval_id


async def approved_task(tasks: TaskService, approvals: ApprovalService, asker: Caller) -> NewTask:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    await approvals.approve(await approval_of(tasks, task), by=make_approver("ann"))
    return task


async def read(approvals: ApprovalService, approval_id: UUID) -> Approval:
    return (await approvals.get(approval_id)).approval


async def state_of(approvals: ApprovalService, approval_id: UUID) -> ApprovalState:
    return (await read(approvals, approval_id)).state


async def just_in_time(
    pool: Pool,
    approvals: ApprovalService,
    patch: pytest.MonkeyPatch,
    time_is_over: str,
    late: Awaitable[Answer],
) -> tuple[Answer, int]:
    """Have the time of an approval be over once `late` has begun its transaction, and the duty find it before `late`
    has committed; return what `late` answers, and how many approvals lapsed.
    """
    found, is_over = asyncio.Event(), asyncio.Event()
    expiring: list[asyncio.Task[int]] = []

    async def passes() -> None:
        await pool.execute(time_is_over)
        expiring.append(asyncio.create_task(approvals.expire(limit=10)))
        await found.wait()

    async def holds() -> None:
        found.set()
        await is_over.wait()

    before(patch, queries, "lock", passes)
    before(patch, queries, "lock_overdue", holds)
    answer = await late
    is_over.set()
    return answer, await expiring[0]


# Deciding


async def test_a_yes_does_not_count_when_somebody_says_no_before_it_is_written(
    approvals: ApprovalService, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval_id = await asked(approvals, asker)
    before(monkeypatch, queries, "lock", lambda: approvals.reject(approval_id, by=make_approver("bob"), reason="no"))

    with pytest.raises(ApprovalNotPossible, match="rejected"):
        await approvals.approve(approval_id, by=make_approver("ann"))

    found = await approvals.get(approval_id)
    assert (found.approval.state, [vote.name for vote in found.votes]) == (ApprovalState.REJECTED, ["bob"])


async def test_of_two_yeses_at_the_same_moment_the_second_sees_the_first(
    pool: Pool, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    approvals = approval_service(pool, approvers=2)
    approval_id = await asked(approvals, asker)
    before(monkeypatch, queries, "lock", lambda: approvals.approve(approval_id, by=make_approver("bob")))

    found = await approvals.approve(approval_id, by=make_approver("ann"))

    assert (found.approval.state, found.approval.yes) == (ApprovalState.APPROVED, 2)


async def test_a_no_waits_until_a_yes_is_written_and_comes_too_late(
    approvals: ApprovalService, pool: Pool, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval_id = await asked(approvals, asker)
    no = Meanwhile(pool, approvals.reject(approval_id, by=make_approver("bob"), reason="no"))
    before(monkeypatch, queries, "decide", no.begins)

    await approvals.approve(approval_id, by=make_approver("ann"))

    assert isinstance(await no.ends(), ApprovalNotPossible)
    found = await approvals.get(approval_id)
    assert (found.approval.state, [vote.name for vote in found.votes]) == (ApprovalState.APPROVED, ["ann"])


async def test_a_yes_does_not_count_when_the_task_is_cancelled_before_it_is_written(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    approval_id = await approval_of(tasks, task)
    before(monkeypatch, admission, "hold_for", lambda: tasks.cancel(task.task_id, by="asker"))

    with pytest.raises(ApprovalNotPossible, match="cancelled"):
        await approvals.approve(approval_id, by=make_approver("ann"))

    assert await on_the_way(pool) == []
    assert (await approvals.get(approval_id)).votes == []


async def test_a_yes_and_a_cancellation_at_the_same_moment_do_not_wait_for_each_other(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    approval_id = await approval_of(tasks, task)
    cancellation = Meanwhile(pool, tasks.cancel(task.task_id, by="asker"))
    before(monkeypatch, queries, "decide", cancellation.begins)

    answered = await approvals.approve(approval_id, by=make_approver("ann"))

    assert answered.approval.state is ApprovalState.APPROVED
    assert await cancellation.ends() is None
    assert (await tasks.get(task.task_id)).status is Status.CANCELLED
    assert await state_of(approvals, approval_id) is ApprovalState.CANCELLED


async def test_a_remark_is_refused_when_the_approval_is_decided_before_it_is_written(
    approvals: ApprovalService, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval_id = await asked(approvals, asker)
    before(monkeypatch, queries, "lock", lambda: approvals.approve(approval_id, by=make_approver("ann")))

    with pytest.raises(ApprovalNotPossible, match="approved"):
        await approvals.comment(approval_id, by=asker, text="wait")

    assert (await approvals.get(approval_id)).comments == []


async def test_a_decision_that_is_written_after_another_changes_nothing(
    approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    approval_id = await asked(approvals, asker)
    assert await state_of(approvals, approval_id) is ApprovalState.WAITING
    await approvals.reject(approval_id, by=make_approver("bob"), reason="no")
    decided = await read(approvals, approval_id)

    async with transaction(pool) as db:
        await queries.decide(db, approval_id, ApprovalState.APPROVED)

    assert await read(approvals, approval_id) == decided


async def test_a_task_that_is_let_go_after_it_has_ended_stays_as_it_is(
    tasks: TaskService, pool: Pool, asker: Caller
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    assert (await tasks.get(task.task_id)).status is Status.AWAITING_APPROVAL
    await tasks.cancel(task.task_id, by="asker")
    ended = await tasks.get(task.task_id)

    async with transaction(pool) as db:
        await queries.let_go(db, task.task_id)

    assert await tasks.get(task.task_id) == ended


# Using


async def test_an_approval_is_for_one_task_when_another_uses_it_before_it_is_read(
    tasks: TaskService, approvals: ApprovalService, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval_id = await approved(approvals, asker)
    first, second = (make_risky_task(asker, approval_id=approval_id) for _ in range(2))
    before(monkeypatch, queries, "lock", lambda: tasks.dispatch([first], by="caller"))

    [refused] = await tasks.dispatch([second], by="caller")

    assert isinstance(refused, ApprovalMismatch)
    assert (await read(approvals, approval_id)).task_id == first.task_id


async def test_an_approval_is_for_one_task_when_another_asks_before_its_use_is_written(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval_id = await approved(approvals, asker)
    first, second = (make_risky_task(asker, approval_id=approval_id) for _ in range(2))
    other = Meanwhile(pool, tasks.dispatch([second], by="caller"))
    before(monkeypatch, queries, "bind", other.begins)

    [known] = await tasks.dispatch([first], by="caller")

    [refused] = await other.ends()
    assert isinstance(known, Identity)
    assert isinstance(refused, ApprovalMismatch)
    assert await on_the_way(pool) == [first.task_id]


async def test_an_approval_that_is_spent_stays_with_its_task_when_it_is_spent_again(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    approval_id = await approved(approvals, asker)
    assert (await read(approvals, approval_id)).task_id is None
    first, second = make_risky_task(asker, approval_id=approval_id), make_risky_task(asker)
    await tasks.dispatch([first], by="caller")

    async with transaction(pool) as db:
        await queries.bind(db, [(approval_id, second.task_id, second.trace_id)])

    assert (await read(approvals, approval_id)).task_id == first.task_id


async def test_an_approval_that_has_lapsed_is_spent_on_nothing(
    approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    approval_id, task = await approved(approvals, asker), make_risky_task(asker)
    assert await state_of(approvals, approval_id) is ApprovalState.APPROVED
    await pool.execute(TIME_TO_BEGIN_IS_OVER)
    assert await approvals.expire(limit=10) == 1

    async with transaction(pool) as db:
        await queries.bind(db, [(approval_id, task.task_id, task.trace_id)])

    assert (await read(approvals, approval_id)).task_id is None


async def test_an_approval_whose_task_is_cancelled_does_not_become_used(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = await approved_task(tasks, approvals, asker)
    approval_id = await approval_of(tasks, task)
    assert await state_of(approvals, approval_id) is ApprovalState.APPROVED
    await tasks.cancel(task.task_id, by="asker")

    async with transaction(pool) as db:
        await queries.use(db, [approval_id])

    assert await state_of(approvals, approval_id) is ApprovalState.CANCELLED


# Expiring


async def test_what_is_approved_just_in_time_does_not_lapse(
    approvals: ApprovalService, pool: Pool, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval_id = await asked(approvals, asker)

    answered, lapsed = await just_in_time(
        pool,
        approvals,
        monkeypatch,
        TIME_TO_ANSWER_IS_OVER,
        approvals.approve(approval_id, by=make_approver("ann")),
    )

    assert (answered.approval.state, lapsed) == (ApprovalState.APPROVED, 0)
    assert await state_of(approvals, approval_id) is ApprovalState.APPROVED


async def test_an_approval_that_is_used_just_in_time_lapses_together_with_its_task(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval_id = await approved(approvals, asker)
    task = make_risky_task(asker, approval_id=approval_id)

    [known], lapsed = await just_in_time(
        pool, approvals, monkeypatch, TIME_TO_BEGIN_IS_OVER, tasks.dispatch([task], by="caller")
    )
    assert isinstance(known, Identity)
    assert (lapsed, await state_of(approvals, approval_id)) == (0, ApprovalState.APPROVED)

    assert await approvals.expire(limit=10) == 1
    assert (await tasks.get(task.task_id)).status is Status.CANCELLED
    assert await state_of(approvals, approval_id) is ApprovalState.EXPIRED


async def test_work_that_begins_just_in_time_runs_on_and_its_approval_is_used(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await approved_task(tasks, approvals, asker)
    expiry = Meanwhile(pool, approvals.expire(limit=10))
    before(monkeypatch, queries, "lock", lambda: pool.execute(TIME_TO_BEGIN_IS_OVER))
    before(monkeypatch, lease_queries, "lease", expiry.begins)

    assert await given(pool) == [task.task_id]

    assert await expiry.ends() == 0
    assert (await tasks.get(task.task_id)).status is Status.RUNNING
    assert await state_of(approvals, await approval_of(tasks, task)) is ApprovalState.USED


@pytest.mark.parametrize("is_approved", [False, True], ids=["waiting", "approved"])
async def test_an_approval_whose_task_is_cancelled_before_it_lapses_is_cancelled(
    tasks: TaskService,
    approvals: ApprovalService,
    pool: Pool,
    asker: Caller,
    monkeypatch: pytest.MonkeyPatch,
    is_approved: bool,
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    approval_id = await approval_of(tasks, task)
    if is_approved:
        await approvals.approve(approval_id, by=make_approver("ann"))
    await pool.execute(TIME_TO_BEGIN_IS_OVER if is_approved else TIME_TO_ANSWER_IS_OVER)
    before(monkeypatch, admission, "hold_for", lambda: tasks.cancel(task.task_id, by="asker"))

    assert await approvals.expire(limit=10) == 0

    assert await state_of(approvals, approval_id) is ApprovalState.CANCELLED
    assert "approval.expired" not in await kinds_of(pool, task.task_id)


async def test_nothing_lapses_before_its_time(approvals: ApprovalService, pool: Pool, asker: Caller) -> None:
    ids = [await asked(approvals, asker), await approved(approvals, asker)]

    async with transaction(pool) as db:
        assert await queries.lock_overdue(db, ids) == []
    assert await approvals.expire(limit=10) == 0


async def test_an_approval_that_lapses_after_its_work_began_stays_used(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = await approved_task(tasks, approvals, asker)
    approval_id = await approval_of(tasks, task)
    assert await state_of(approvals, approval_id) is ApprovalState.APPROVED
    assert await given(pool) == [task.task_id]

    async with transaction(pool) as db:
        await queries.lapse(db, {approval_id: "not begun in time"})

    assert await state_of(approvals, approval_id) is ApprovalState.USED


async def test_a_task_that_is_cancelled_for_want_of_an_approval_after_it_began_runs_on(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = await approved_task(tasks, approvals, asker)
    assert (await tasks.get(task.task_id)).status is Status.PENDING
    assert await given(pool) == [task.task_id]

    async with transaction(pool) as db:
        await queries.cancel_tasks(db, {task.task_id: "not begun in time"}, error_code=ErrorCode.APPROVAL_DENIED)

    assert (await tasks.get(task.task_id)).status is Status.RUNNING


# Voiding


async def test_a_task_that_begins_before_it_is_cancelled_leaves_its_approval_used(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await approved_task(tasks, approvals, asker)
    before(monkeypatch, admission, "hold_for", lambda: given(pool))

    await tasks.cancel(task.task_id, by="asker")

    assert (await tasks.get(task.task_id)).status is Status.CANCELLED
    assert await state_of(approvals, await approval_of(tasks, task)) is ApprovalState.USED
    assert "approval.cancelled" not in await kinds_of(pool, task.task_id)


async def test_a_task_that_is_approved_before_it_is_cancelled_does_not_run(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    approval_id = await approval_of(tasks, task)
    before(monkeypatch, admission, "hold_for", lambda: approvals.approve(approval_id, by=make_approver("ann")))

    await tasks.cancel(task.task_id, by="asker")

    assert (await state_of(approvals, approval_id), await on_the_way(pool)) == (ApprovalState.CANCELLED, [])
