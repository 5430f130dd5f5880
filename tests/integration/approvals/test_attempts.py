"""A yes is for as many attempts as people saw, to the one who asked, and until it holds no longer."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.errors import ErrorCode, InvalidField
from common.lifecycle import Status
from common.loop import Wake
from common.messages import Credit, ResultStatus
from common.rest.approvals import ApprovalState
from common.rest.identities import Role
from orchestrator.approvals.model import Approval, AskedTerms
from orchestrator.approvals.rules import ApprovalMismatch
from orchestrator.approvals.service import ApprovalService
from orchestrator.database.pool import Pool
from orchestrator.identities.model import Caller
from orchestrator.jobs import queries as jobs
from orchestrator.jobs.claims import Claims
from orchestrator.jobs.model import Wanted
from orchestrator.jobs.rules import worker_of
from orchestrator.leases.service import LeaseService
from orchestrator.loops.expire_approvals import ExpireApprovals
from orchestrator.tasks.dispatch import asked_terms
from orchestrator.tasks.model import Identity, NewTask, Task
from orchestrator.tasks.rerun import make_rerun
from orchestrator.tasks.service import TaskService
from tests.factories import make_caller, make_result
from tests.integration.approvals.conftest import approval_of, given, make_approver, make_risky_task, risky
from tests.integration.ledger import register
from tests.integration.orchestrator.on_credit import Orchestrator

AGENT = uuid4()
TWENTY: AskedTerms = {"max_attempts": 20}


async def approved(approvals: ApprovalService, asker: Caller, **asked: Any) -> Approval:
    """Ask beforehand on these terms, and have somebody say yes."""
    question = await approvals.request("echo", {"message": "hello"}, {}, by=asker, **asked)
    return (await approvals.approve(question.approval.approval_id, by=make_approver("ann"))).approval


async def lease(tasks: TaskService, pool: Pool, task_id: UUID) -> Task:
    """Have an agent ask for work and get this task; return it as it runs."""
    assert await given(pool, AGENT) == [task_id]
    return await tasks.get(task_id)


async def fail(leases: LeaseService, running: Task) -> None:
    """Report that an attempt failed, and may be repeated."""
    failed = make_result(
        running.task_id,
        AGENT,
        status=ResultStatus.FAILED,
        exit_code=1,
        error_code=ErrorCode.AGENT_UNAVAILABLE,
        attempt=running.attempt,
        retryable=True,
    )
    await leases.accept([failed])


async def test_one_yes_runs_a_task_once_though_its_agent_would_have_it_repeated(
    tasks: TaskService, leases: LeaseService, approvals: ApprovalService, asker: Caller, pool: Pool
) -> None:
    approval = await approved(approvals, asker)
    task = make_risky_task(asker, approval_id=approval.approval_id)
    await tasks.dispatch([task], by="caller")

    await fail(leases, await lease(tasks, pool, task.task_id))

    ended = await tasks.get(task.task_id)
    assert (ended.status, ended.attempt) == (Status.FAILED, 1)


async def test_one_yes_for_one_attempt_lets_no_task_of_twenty_in(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    approval = await approved(approvals, asker)
    assert approval.max_attempts == 1

    [refused] = await tasks.dispatch(
        [make_risky_task(asker, approval_id=approval.approval_id, max_attempts=20)], by="caller"
    )

    assert isinstance(refused, ApprovalMismatch)
    assert "max_attempts is 20, and was approved as 1" in str(refused)
    assert await pool.fetchval("SELECT count(*) FROM task") == 0


async def test_a_task_that_waits_for_its_approval_shows_how_often_it_would_start(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = make_risky_task(asker, max_attempts=20)
    await tasks.dispatch([task], by="caller")

    found = (await approvals.get(await approval_of(tasks, task))).approval

    assert (found.max_attempts, found.terms) == (20, task.terms)
    asked = await pool.fetchval("SELECT data FROM event WHERE kind = 'approval.requested'")
    assert (asked["terms"]["max_attempts"], asked["approved_digest"]) == (20, found.approved_digest.hex())
    assert (asked["token_id"], asked["token_created_by"]) == (str(asker.token_id), "root")


async def test_who_asks_for_twenty_attempts_gets_them_and_people_saw_the_number(
    tasks: TaskService, leases: LeaseService, approvals: ApprovalService, asker: Caller, pool: Pool
) -> None:
    approval = await approved(approvals, asker, **TWENTY)
    assert (approval.max_attempts, approval.terms["max_attempts"]) == (20, 20)
    task = make_risky_task(asker, approval_id=approval.approval_id, max_attempts=20)
    [known] = await tasks.dispatch([task], by="caller")
    assert isinstance(known, Identity), known

    await fail(leases, await lease(tasks, pool, task.task_id))
    again = await lease(tasks, pool, task.task_id)

    assert again.attempt == 2


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ({"max_attempts": 2}, "max_attempts"),
        ({"idempotent": True}, "idempotent"),
        ({"priority": 5}, "priority"),
        ({"ordering_key": "web-1"}, "ordering_key"),
        ({"concurrency_key": "pulls", "concurrency_limit": 4}, "concurrency_key"),
        ({"concurrency_key": "pulls", "concurrency_limit": 4}, "concurrency_limit"),
        ({"expires_after": timedelta(days=30)}, "expires_after_seconds"),
        ({"parameters": {"message": "rm"}}, "parameters"),
        ({"hints": {"required_capabilities": {"zone": "eu"}}}, "hints"),
        ({"agent_type": "desktop"}, "target"),
        ({"ruling": risky(version="4-def")}, "policy_version"),
    ],
)
async def test_a_dispatch_on_other_terms_is_refused_and_told_which(
    tasks: TaskService, approvals: ApprovalService, asker: Caller, edit: dict[str, Any], named: str
) -> None:
    approval = await approved(approvals, asker)
    task = replace(make_risky_task(asker, approval_id=approval.approval_id), **edit)

    [refused] = await tasks.dispatch([task], by="caller")

    assert isinstance(refused, ApprovalMismatch)
    assert named in str(refused)
    assert (await approvals.get(approval.approval_id)).approval.state is ApprovalState.APPROVED


async def test_what_is_approved_on_all_its_terms_runs(
    tasks: TaskService, approvals: ApprovalService, asker: Caller, pool: Pool
) -> None:
    terms: AskedTerms = {
        "priority": 5,
        "idempotent": True,
        "max_attempts": 2,
        "ordering_key": "web-1",
        "concurrency_key": "pulls",
        "concurrency_limit": 4,
        "expires_after": timedelta(days=20, microseconds=1),
    }
    approval = await approved(approvals, asker, **terms)
    task = make_risky_task(asker, approval_id=approval.approval_id, **terms)

    await tasks.dispatch([task], by="caller")

    assert (await lease(tasks, pool, task.task_id)).approval_id == approval.approval_id


@pytest.mark.parametrize(
    "edit",
    [
        "max_attempts = 20",
        "idempotent = true",
        "priority = 5",
        "precedence = 5",
        "expires_at = now() + interval '1 year'",
    ],
)
async def test_terms_that_somebody_edits_in_the_ledger_let_nothing_run(
    tasks: TaskService, approvals: ApprovalService, pool: Pool, asker: Caller, edit: str
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    await approvals.approve(await approval_of(tasks, task), by=make_approver("ann"))
    await pool.execute(f"UPDATE task SET {edit}")

    assert await given(pool) == []

    ended = await tasks.get(task.task_id)
    assert (ended.status, ended.error_code) == (Status.CANCELLED, ErrorCode.APPROVAL_MISMATCH)
    assert edit.partition(" ")[0].replace("expires_at", "expires_after_seconds") in str(ended.error_message)


async def test_the_limit_that_a_later_dispatch_gives_to_a_key_voids_no_approval(
    tasks: TaskService, approvals: ApprovalService, asker: Caller, pool: Pool
) -> None:
    task = make_risky_task(asker, concurrency_key="pulls", concurrency_limit=4, stop_after=3)
    await tasks.dispatch([task], by="caller")
    await approvals.approve(await approval_of(tasks, task), by=make_approver("ann"))
    await tasks.dispatch([make_risky_task(asker, concurrency_key="pulls", concurrency_limit=2)], by="caller")

    assert (await lease(tasks, pool, task.task_id)).task_id == task.task_id


async def test_only_the_one_who_asked_uses_an_approval_and_never_a_voter(
    tasks: TaskService, approvals: ApprovalService, asker: Caller
) -> None:
    ann, mal = make_approver("ann"), make_caller("mal", Role.OPERATOR)
    question = await approvals.request("echo", {"message": "hello"}, {}, by=asker)
    approval = (await approvals.approve(question.approval.approval_id, by=ann)).approval
    second_token = make_caller("asker", Role.OPERATOR, principal_id=asker.principal_id)

    by_voter, by_another = [
        (await tasks.dispatch([make_risky_task(one, approval_id=approval.approval_id)], by=one.name))[0]
        for one in (ann, mal)
    ]
    [by_asker] = await tasks.dispatch([make_risky_task(second_token, approval_id=approval.approval_id)], by="asker")

    for refused in (by_voter, by_another):
        assert isinstance(refused, ApprovalMismatch)
        assert "'asker' asked for it, and nobody else may use it" in str(refused)
    assert isinstance(by_asker, Identity), "with another token the asker is the same"


async def retried(
    tasks: TaskService, leases: LeaseService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> NewTask:
    """Return approved work that failed once and waits for its second attempt."""
    approval = await approved(approvals, asker, **TWENTY)
    task = make_risky_task(asker, approval_id=approval.approval_id, max_attempts=20)
    await tasks.dispatch([task], by="caller")
    await fail(leases, await lease(tasks, pool, task.task_id))
    assert (await tasks.get(task.task_id)).status is Status.PENDING
    return task


async def test_no_retry_begins_after_its_approval_holds_no_longer(
    tasks: TaskService, leases: LeaseService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = await retried(tasks, leases, approvals, pool, asker)
    await pool.execute("UPDATE approval SET valid_until = now()")

    assert await given(pool) == []

    ended = await tasks.get(task.task_id)
    assert (ended.status, ended.attempt) == (Status.CANCELLED, 1)
    assert ended.error_message == "withheld: its approval does not hold any more"


async def test_a_retry_that_waits_longer_than_its_approval_holds_is_cancelled_unclaimed(
    tasks: TaskService, leases: LeaseService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = await retried(tasks, leases, approvals, pool, asker)
    giver = Wake()
    duty = ExpireApprovals(approvals, tasks, giver)
    assert await duty.run_once() == 0
    await pool.execute("UPDATE approval SET valid_until = now()")

    assert await duty.run_once() == 1

    assert (await tasks.get(task.task_id)).status is Status.CANCELLED
    assert await duty.run_once() == 0


async def test_work_whose_lease_was_lost_does_not_begin_anew_after_its_approval_holds_no_longer(
    tasks: TaskService, leases: LeaseService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    approval = await approved(approvals, asker, **TWENTY)
    task = make_risky_task(asker, approval_id=approval.approval_id, max_attempts=20)
    await tasks.dispatch([task], by="caller")
    await lease(tasks, pool, task.task_id)
    await pool.execute("UPDATE approval SET valid_until = now()")
    await pool.execute("UPDATE task SET lease_expires_at = now() - interval '1 second'")
    assert await leases.reap(limit=10) == 1

    assert await given(pool) == []

    assert (await tasks.get(task.task_id)).status is Status.CANCELLED


async def test_a_grant_that_was_lost_is_granted_again_only_while_the_approval_holds(
    tasks: TaskService, leases: LeaseService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    await approvals.approve(await approval_of(tasks, task), by=make_approver("ann"))
    running = await lease(tasks, pool, task.task_id)
    assert running.claim_id is not None
    lost = {AGENT: Credit(session=running.claim_id, number=1, limit=8, received=0, heard=1)}
    assert [one.task.task_id for one in await leases.settle(lost)] == [task.task_id]
    await pool.execute("UPDATE approval SET valid_until = now()")

    assert await leases.settle(lost) == []


async def test_a_repeated_claim_over_http_gets_its_job_again_only_while_the_approval_holds(
    tasks: TaskService, leases: LeaseService, approvals: ApprovalService, pool: Pool, asker: Caller
) -> None:
    task = make_risky_task(asker)
    await tasks.dispatch([task], by="caller")
    await approvals.approve(await approval_of(tasks, task), by=make_approver("ann"))
    claims = Claims(pool, leases, Orchestrator(pool).giving, since=datetime.now(UTC), grace=timedelta(0))
    worker = worker_of("worker-1")
    await register(pool, worker.agent_id)
    async with pool.acquire() as db:
        await jobs.name(db, worker)
    wanted = Wanted(worker, uuid4(), repeatable=True, lease=timedelta(seconds=30))
    [first], [again] = await claims.give([wanted]), await claims.give([wanted])
    assert first is not None
    assert again == first
    await pool.execute("UPDATE approval SET valid_until = now()")

    assert await claims.give([wanted]) == [None]


async def test_a_rerun_of_approved_work_asks_anew_for_as_many_attempts(
    tasks: TaskService, approvals: ApprovalService, asker: Caller
) -> None:
    approval = await approved(approvals, asker, **TWENTY)
    task = make_risky_task(asker, approval_id=approval.approval_id, max_attempts=20)
    await tasks.dispatch([task], by="caller")
    await tasks.cancel(task.task_id, by="asker")
    old = await tasks.get(task.task_id)

    again = make_rerun(old, task_id=uuid4(), request_id=uuid4(), rule=lambda _work: risky(), by=make_approver("ann"))
    await tasks.dispatch([again], by="ann")

    assert (await tasks.get(again.task_id)).status is Status.AWAITING_APPROVAL
    asked = (await approvals.get(await approval_of(tasks, again))).approval
    assert (asked.requested_by, asked.max_attempts, asked.state) == ("ann", 20, ApprovalState.WAITING)


def test_a_question_beforehand_about_terms_that_no_dispatch_may_have_is_refused() -> None:
    with pytest.raises(InvalidField, match="concurrency_limit"):
        asked_terms(concurrency_key="pulls")
    with pytest.raises(InvalidField, match="priority"):
        asked_terms(priority=6)
