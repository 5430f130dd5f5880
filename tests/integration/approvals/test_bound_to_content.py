"""An approval is one for exactly this content, once; what was altered in the ledger never runs."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from common.errors import ErrorCode
from common.lifecycle import Status
from common.policy.model import Effect, Ruling
from common.rest.approvals import ApprovalState
from orchestrator.approvals.model import Approval
from orchestrator.approvals.rules import ApprovalMismatch
from orchestrator.approvals.service import ApprovalService
from orchestrator.database.pool import Pool
from orchestrator.identities.model import Caller
from orchestrator.tasks.model import Identity, NewTask
from orchestrator.tasks.service import TaskService
from tests.factories import make_new_task
from tests.integration.approvals.conftest import approval_of, given, make_approver, make_risky_task, on_the_way, risky


async def approved_beforehand(approvals: ApprovalService, asker: Caller, parameters: dict[str, Any]) -> Approval:
    asked = await approvals.request("echo", parameters, {}, by=asker)
    return (await approvals.approve(asked.approval.approval_id, by=make_approver("ann"))).approval


def with_approval(asker: Caller, approval: Approval, **values: Any) -> NewTask:
    return make_risky_task(asker, approval_id=approval.approval_id, **values)


# SHA-256 of {"hints":{},"parameters":{"message":"hello"},"policy_version":"3-abc","target":"infra","work_type":"echo"}
WORK_DIGEST = "302fbb81a7cb61527dae1bf9b9f92ac730b45fbba66c93c47b57b3f257a8e934"
# SHA-256 of the text that `tests.unit.orchestrator.test_approved_terms` has for it.
APPROVED_DIGEST = "6990fb5b911b03249f11a8d95286174afa58fd9efebacb222aa170944eebec54"


async def test_people_approve_the_digests_of_exactly_this_work_on_these_terms(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = make_risky_task(asker, parameters={"message": "hello"})
    await tasks.dispatch([task], by="caller")

    beforehand = (await approvals.request("echo", {"message": "hello"}, {}, by=asker)).approval
    waited_for = (await approvals.get(await approval_of(tasks, task))).approval

    for asked in (beforehand, waited_for):
        assert (asked.digest.hex(), asked.approved_digest.hex()) == (WORK_DIGEST, APPROVED_DIGEST)
    told = [row["data"] for row in await pool.fetch("SELECT data FROM event WHERE kind = 'approval.requested'")]
    assert [(one["digest"], one["approved_digest"]) for one in told] == [(WORK_DIGEST, APPROVED_DIGEST)] * 2


async def test_an_approval_asked_for_beforehand_lets_exactly_this_work_run_once(
    tasks: TaskService, approvals: ApprovalService, asker: Caller, pool: Pool
) -> None:
    approval = await approved_beforehand(approvals, asker, {"message": "hello"})
    first, second = with_approval(asker, approval), with_approval(asker, approval)

    [known] = await tasks.dispatch([first], by="caller")
    [refused] = await tasks.dispatch([second], by="caller")

    assert isinstance(known, Identity)
    assert isinstance(refused, ApprovalMismatch)
    assert "used already" in str(refused)
    assert await given(pool) == [first.task_id]
    assert (await approvals.get(approval.approval_id)).approval.state is ApprovalState.USED


async def test_the_same_dispatch_again_gets_the_same_answer_though_its_approval_is_used(
    tasks: TaskService, approvals: ApprovalService, asker: Caller
) -> None:
    approval = await approved_beforehand(approvals, asker, {"message": "hello"})
    task = with_approval(asker, approval)

    [first] = await tasks.dispatch([task], by="caller")
    [again] = await tasks.dispatch([task], by="caller")
    [by_request] = await tasks.dispatch([replace(task, task_id=uuid4())], by="caller")

    assert first == again == by_request


@pytest.mark.parametrize(
    "edit",
    [
        {"parameters": {"message": "hello "}},
        {"work_type": "shell_script"},
        {"agent_type": "desktop"},
        {"hints": {"agent_id": str(uuid4())}},
        {"ruling": risky(version="4-def")},
    ],
    ids=["parameters", "work type", "target", "hints", "policy"],
)
async def test_any_edit_voids_it(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller, edit: dict[str, Any]
) -> None:
    approval = await approved_beforehand(approvals, asker, {"message": "hello"})

    [refused] = await tasks.dispatch([replace(with_approval(asker, approval), **edit)], by="caller")

    assert isinstance(refused, ApprovalMismatch)
    assert (await pool.fetchval("SELECT count(*) FROM task"), await on_the_way(pool)) == (0, [])
    assert (await approvals.get(approval.approval_id)).approval.state is ApprovalState.APPROVED


async def test_two_contents_under_one_id_in_one_call_do_not_share_an_approval(
    tasks: TaskService, approvals: ApprovalService, asker: Caller
) -> None:
    approval = await approved_beforehand(approvals, asker, {"message": "hello"})
    good = with_approval(asker, approval)
    evil = replace(good, parameters={"message": "rm"}, approval_id=uuid4())

    answers = await tasks.dispatch([evil, good], by="caller")

    assert isinstance(answers[0], Exception)
    assert (await tasks.get(good.task_id)).parameters == {"message": "hello"}


async def test_two_tasks_of_one_call_with_the_same_content_do_not_share_an_approval(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    approval = await approved_beforehand(approvals, asker, {"message": "hello"})
    first, second = with_approval(asker, approval), with_approval(asker, approval)

    known, refused = await tasks.dispatch([first, second], by="caller")

    assert isinstance(known, Identity)
    assert isinstance(refused, ApprovalMismatch)
    assert await on_the_way(pool) == [first.task_id]


async def test_what_is_not_approved_yet_or_not_any_more_lets_nothing_run(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    waiting = (await approvals.request("echo", {"message": "hello"}, {}, by=asker)).approval
    over = await approved_beforehand(approvals, asker, {"message": "hello"})
    await pool.execute("UPDATE approval SET valid_until = now() WHERE approval_id = $1", over.approval_id)

    answers = await tasks.dispatch(
        [with_approval(asker, waiting), with_approval(asker, over), make_risky_task(asker, approval_id=uuid4())],
        by="caller",
    )

    assert [isinstance(answer, ApprovalMismatch) for answer in answers] == [True, True, True]


async def test_of_many_who_use_one_approval_at_once_one_wins(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    approval = await approved_beforehand(approvals, asker, {"message": "hello"})

    answers = await asyncio.gather(
        *(tasks.dispatch([with_approval(asker, approval), make_new_task()], by="caller") for _ in range(8))
    )

    assert [isinstance(first, Identity) for first, _ in answers].count(True) == 1
    assert all(isinstance(other, Identity) for _, other in answers)
    assert len(await on_the_way(pool)) == 1 + 8


@pytest.mark.parametrize(
    "edit",
    [
        'parameters = \'{"message": "rm -rf /"}\'',
        # A number that has no canonical text: the row has no digest at all.
        'parameters = \'{"message": "hello", "n": 1e300}\'',
        "work_type = 'shell_script'",
        "agent_type = 'desktop'",
        "policy_version = '9'",
        'hints = \'{"agent_id": "x"}\'',
        "work_digest = NULL",
    ],
)
async def test_a_row_that_somebody_edits_never_runs(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller, edit: str
) -> None:
    approved, plain = make_risky_task(asker), make_new_task()
    await tasks.dispatch([approved, plain], by="caller")
    await approvals.approve(await approval_of(tasks, approved), by=make_approver("ann"))
    await pool.execute(f"UPDATE task SET {edit}")

    assert await given(pool) == []
    assert await given(pool, agent_type="desktop") == []

    for task in (approved, plain):
        ended = await tasks.get(task.task_id)
        assert (ended.status, ended.error_code) == (Status.CANCELLED, ErrorCode.APPROVAL_MISMATCH)
    assert await on_the_way(pool) == []


async def test_an_edit_that_brings_its_own_digest_is_not_what_was_approved(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    await approvals.approve(await approval_of(tasks, task), by=make_approver("ann"))
    evil = replace(task, parameters={"message": "rm -rf /"})
    await pool.execute("UPDATE task SET parameters = $1, work_digest = $2", evil.parameters, evil.work_digest)

    assert await given(pool) == []

    assert "not what was approved" in str((await tasks.get(task.task_id)).error_message)


async def test_a_task_that_somebody_points_at_the_used_approval_of_the_same_content_never_runs(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    approval = await approved_beforehand(approvals, asker, {"message": "hello"})
    first, second = with_approval(asker, approval), make_risky_task(asker)
    await tasks.dispatch([first], by="caller")
    assert await given(pool) == [first.task_id]
    await tasks.dispatch([second], by="caller")
    await approvals.approve(await approval_of(tasks, second), by=make_approver("ann"))
    await pool.execute("UPDATE task SET approval_id = $1 WHERE task_id = $2", approval.approval_id, second.task_id)

    assert await given(pool) == []

    assert "not what was approved" in str((await tasks.get(second.task_id)).error_message)


async def test_the_ledger_itself_lets_nothing_go_that_was_not_approved(
    tasks: TaskService, pool: Pool, asker: Caller
) -> None:
    await tasks.dispatch([make_risky_task(asker)], by="caller")

    with pytest.raises(asyncpg.CheckViolationError, match="was not approved"):
        await pool.execute("UPDATE task SET status = 'pending'")
    with pytest.raises(asyncpg.CheckViolationError, match="task_awaits_an_approval"):
        await pool.execute("UPDATE task SET approval_id = NULL")


async def test_work_that_needs_no_approval_may_not_bring_one_that_is_not_for_it(
    tasks: TaskService, approvals: ApprovalService, asker: Caller
) -> None:
    approval = await approved_beforehand(approvals, asker, {"message": "hello"})
    free = make_new_task(ruling=Ruling("free", "3-abc", Effect.READ), approval_id=approval.approval_id, hints={"x": 1})

    [refused] = await tasks.dispatch([free], by="caller")

    assert isinstance(refused, ApprovalMismatch)
