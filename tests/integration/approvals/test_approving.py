"""Nothing that needs an approval goes to an agent before people said yes; a no, or silence, ends it."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from common.errors import ErrorCode
from common.lifecycle import Status
from common.rest.approvals import ApprovalState
from common.rest.identities import PrincipalKind, Role
from orchestrator.approvals.model import ApprovalFilter
from orchestrator.approvals.rules import ApprovalNotPossible
from orchestrator.approvals.service import ApprovalNotFound, ApprovalService
from orchestrator.database.pool import Pool
from orchestrator.events import queries as events
from orchestrator.identities.model import Caller, Forbidden
from orchestrator.tasks.model import Identity
from orchestrator.tasks.service import TaskService
from tests.factories import make_caller, make_new_task
from tests.integration.approvals.conftest import approval_of, given, make_approver, make_risky_task, on_the_way
from tests.integration.ledger import lease_to


async def kinds(pool: Pool) -> list[str]:
    async with pool.acquire() as db:
        rows = await db.fetch("SELECT kind FROM event ORDER BY seq")
        assert len(rows) == await events.head(db)
    return [row["kind"] for row in rows]


async def test_what_awaits_an_approval_has_one_that_shows_the_work_and_goes_to_nobody(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = make_risky_task(asker)

    [known] = await tasks.dispatch([task], by="caller")

    found = await approvals.get(await approval_of(tasks, task))
    assert isinstance(known, Identity)
    assert (known.status, known.approval_id) == (Status.AWAITING_APPROVAL, found.approval.approval_id)
    assert found.approval.state is ApprovalState.WAITING
    assert (found.approval.parameters, found.approval.digest) == (task.parameters, task.work_digest)
    assert (found.approval.requester_id, found.approval.task_id) == (asker.principal_id, task.task_id)
    assert await on_the_way(pool) == []
    assert await kinds(pool) == ["task.dispatched", "approval.requested"]


async def test_a_task_that_awaits_its_approval_cannot_be_claimed(tasks: TaskService, asker: Caller, pool: Pool) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")

    assert await given(pool) == []
    assert await lease_to(pool, task.task_id) == []


async def test_the_last_yes_lets_the_task_go_and_it_runs(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = make_risky_task(asker, approvers=2)
    await tasks.dispatch([task], by="caller")
    approval_id = await approval_of(tasks, task)

    first = await approvals.approve(approval_id, by=make_approver("ann"))
    assert (first.approval.state, first.approval.yes, await on_the_way(pool)) == (ApprovalState.WAITING, 1, [])
    second = await approvals.approve(approval_id, by=make_approver("bob"), comment="looks right")

    assert second.approval.state is ApprovalState.APPROVED
    assert [vote.name for vote in second.votes] == ["ann", "bob"]
    assert len(await on_the_way(pool)) == 1
    assert await given(pool) == [task.task_id]
    assert (await tasks.get(task.task_id)).approval_id == approval_id
    assert (await approvals.get(approval_id)).approval.state is ApprovalState.USED
    assert await kinds(pool) == [
        "task.dispatched",
        "approval.requested",
        "approval.voted",
        "approval.voted",
        "approval.approved",
        "task.claimed",
    ]


async def test_the_same_person_again_changes_nothing(
    tasks: TaskService, approvals: ApprovalService, asker: Caller
) -> None:
    task = make_risky_task(asker, approvers=2)
    await tasks.dispatch([task], by="caller")
    approval_id, ann = await approval_of(tasks, task), make_approver("ann")
    other_token = make_caller("ann", Role.APPROVER, principal_id=ann.principal_id)

    await approvals.approve(approval_id, by=ann)
    again = await approvals.approve(approval_id, by=other_token)

    assert (again.approval.state, again.approval.yes) == (ApprovalState.WAITING, 1)
    with pytest.raises(ApprovalNotPossible, match="answered this already"):
        await approvals.reject(approval_id, by=ann, reason="no, after all")


async def test_nobody_approves_a_request_of_their_own_whatever_the_token(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    approval_id = await approval_of(tasks, task)
    second_token = make_caller("asker", Role.APPROVER, principal_id=asker.principal_id)

    for caller in (asker, second_token):
        with pytest.raises(Forbidden, match="of their own"):
            await approvals.approve(approval_id, by=caller)

    assert await on_the_way(pool) == []


@pytest.mark.parametrize(
    "caller",
    [
        make_caller("robot", Role.APPROVER, kind=PrincipalKind.SERVICE),
        make_caller("host", Role.APPROVER, Role.AGENT, kind=PrincipalKind.AGENT),
        make_caller("viewer", Role.VIEWER),
    ],
    ids=["service", "agent", "no such role"],
)
async def test_only_people_of_the_right_role_answer(
    tasks: TaskService, approvals: ApprovalService, asker: Caller, caller: Caller
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")

    with pytest.raises(Forbidden):
        await approvals.reject(await approval_of(tasks, task), by=caller, reason="because")


async def test_two_who_answer_at_the_same_moment_decide_it_once(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    many = [make_risky_task(asker) for _ in range(10)]
    await tasks.dispatch(many, by="caller")
    ids = [await approval_of(tasks, task) for task in many]

    answers = await asyncio.gather(
        *(
            answer
            for one in ids
            for answer in (
                approvals.approve(one, by=make_approver("ann")),
                approvals.reject(one, by=make_approver("bob"), reason="not today"),
            )
        ),
        return_exceptions=True,
    )

    for first, second in zip(answers[::2], answers[1::2], strict=True):
        assert [isinstance(one, ApprovalNotPossible) for one in (first, second)].count(True) == 1
    decided = [kind for kind in await kinds(pool) if kind in ("approval.approved", "approval.rejected")]
    assert len(decided) == len(many)
    assert len(await on_the_way(pool)) == decided.count("approval.approved")


async def test_a_no_cancels_the_task_with_the_reason(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = make_risky_task(asker, approvers=2)
    await tasks.dispatch([task], by="caller")
    approval_id = await approval_of(tasks, task)
    await approvals.approve(approval_id, by=make_approver("ann"))

    found = await approvals.reject(approval_id, by=make_approver("bob"), reason="wrong host")

    ended = await tasks.get(task.task_id)
    assert (found.approval.state, found.approval.reason) == (ApprovalState.REJECTED, "wrong host")
    assert (ended.status, ended.error_code) == (Status.CANCELLED, ErrorCode.APPROVAL_DENIED)
    assert ended.error_message == "rejected by bob: wrong host"
    assert (await kinds(pool))[-2:] == ["approval.rejected", "task.cancelled"]


async def test_what_nobody_answers_in_time_is_cancelled(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    assert await approvals.expire(limit=10) == 0
    await pool.execute("UPDATE approval SET expires_at = now()")

    with pytest.raises(ApprovalNotPossible, match="waited for an answer until"):
        await approvals.approve(await approval_of(tasks, task), by=make_approver("ann"))
    assert await approvals.expire(limit=10) == 1

    ended = await tasks.get(task.task_id)
    assert (ended.status, ended.error_message) == (Status.CANCELLED, "not approved in time: 0 of 1 said yes")
    assert (await approvals.get(await approval_of(tasks, task))).approval.state is ApprovalState.EXPIRED


async def test_what_is_approved_and_does_not_begin_in_time_is_cancelled(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    late, begun = make_risky_task(asker), make_risky_task(asker)
    await tasks.dispatch([late, begun], by="caller")
    for task in (late, begun):
        await approvals.approve(await approval_of(tasks, task), by=make_approver("ann"))
    async with pool.acquire() as db:
        await db.execute("UPDATE task SET not_before = now() + interval '1 minute' WHERE task_id = $1", late.task_id)
    assert await given(pool) == [begun.task_id]
    await pool.execute("UPDATE approval SET valid_until = now()")

    assert await approvals.expire(limit=10) == 1

    assert (await tasks.get(late.task_id)).status is Status.CANCELLED
    assert (await tasks.get(begun.task_id)).status is Status.RUNNING
    assert await on_the_way(pool) == []


async def test_an_agent_that_asks_too_late_gets_nothing(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    await approvals.approve(await approval_of(tasks, task), by=make_approver("ann"))
    await pool.execute("UPDATE approval SET valid_until = now()")

    assert await given(pool) == []

    assert (await tasks.get(task.task_id)).status is Status.CANCELLED


async def test_cancelling_the_task_ends_its_approval(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    waiting, approved = make_risky_task(asker), make_risky_task(asker)
    await tasks.dispatch([waiting, approved], by="caller")
    await approvals.approve(await approval_of(tasks, approved), by=make_approver("ann"))

    for task in (waiting, approved):
        await tasks.cancel(task.task_id, by="asker")

    found = await approvals.newest(ApprovalFilter(), limit=10)
    assert [one.state for one in found] == [ApprovalState.CANCELLED, ApprovalState.CANCELLED]
    with pytest.raises(ApprovalNotPossible, match="cancelled"):
        await approvals.approve(await approval_of(tasks, waiting), by=make_approver("bob"))
    assert await on_the_way(pool) == []


async def test_the_limit_on_waiting_holds_for_the_approval_too(
    tasks: TaskService, approvals: ApprovalService, asker: Caller
) -> None:
    task = make_risky_task(asker, expires_after=timedelta(minutes=2))
    await tasks.dispatch([task], by="caller")

    approval = (await approvals.get(await approval_of(tasks, task))).approval

    assert approval.expires_at - approval.created_at == timedelta(minutes=2)


async def test_a_task_that_awaits_its_approval_keeps_its_place_in_the_order(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    first, second = make_risky_task(asker, ordering_key="web-1"), make_new_task(ordering_key="web-1")
    await tasks.dispatch([first, second], by="caller")
    assert await on_the_way(pool) == []

    await approvals.approve(await approval_of(tasks, first), by=make_approver("ann"))

    assert await on_the_way(pool) == [first.task_id]


async def test_a_no_lets_the_next_of_the_order_go(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    first, second = make_risky_task(asker, ordering_key="web-1"), make_new_task(ordering_key="web-1")
    await tasks.dispatch([first, second], by="caller")

    await approvals.reject(await approval_of(tasks, first), by=make_approver("ann"), reason="no")

    assert await on_the_way(pool) == [second.task_id]


async def test_a_task_that_awaits_its_approval_takes_no_room_of_a_limit(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    limited: dict[str, Any] = {"concurrency_key": "pulls", "concurrency_limit": 1}
    first, second = make_risky_task(asker, **limited), make_new_task(**limited)
    await tasks.dispatch([first, second], by="caller")
    assert await on_the_way(pool) == [second.task_id]

    await approvals.approve(await approval_of(tasks, first), by=make_approver("ann"))
    assert len(await on_the_way(pool)) == 1
    await tasks.cancel(second.task_id, by="asker")

    assert await on_the_way(pool) == [first.task_id]


async def test_remarks_are_kept_and_decide_nothing(
    tasks: TaskService, approvals: ApprovalService, asker: Caller
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")

    found = await approvals.comment(await approval_of(tasks, task), by=asker, text="it is urgent")

    assert [(one.name, one.text) for one in found.comments] == [("asker", "it is urgent")]
    assert found.approval.state is ApprovalState.WAITING
    with pytest.raises(ApprovalNotFound):
        await approvals.comment(uuid4(), by=asker, text="hello?")
