"""The use cases of approvals, one transaction each: ask, look, answer, comment, and let lapse what nobody answered.

Every one that touches a task follows the order of locks of `keys.admission`: keys, tasks, approvals, events last.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Unpack
from uuid import UUID, uuid4

from common.canonical import work_digest
from common.errors import ErrorCode, NotFound
from common.lifecycle import Change, Status, next_status
from common.loop import Wake
from common.policy.model import Work
from common.rest.approvals import ApprovalState
from orchestrator.approvals import events as told
from orchestrator.approvals import queries
from orchestrator.approvals.model import (
    Approval,
    ApprovalFilter,
    AskedTerms,
    Discussed,
    NewApproval,
    Terms,
    WaitingTask,
)
from orchestrator.approvals.rules import ApprovalNotPossible, Repeats, check_open, judge_vote
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.identities.model import Caller
from orchestrator.keys import admission
from orchestrator.keys.model import Keys, has_keys
from orchestrator.policy.service import RuleWork

log = logging.getLogger(__name__)

EXPIRY = "orchestrator"

WorkOf = Callable[[str, Mapping[str, Any], Mapping[str, Any]], Work]
TermsOf = Callable[..., Terms]


class ApprovalNotFound(NotFound):
    code = ErrorCode.APPROVAL_NOT_FOUND

    def __init__(self, approval_id: UUID) -> None:
        super().__init__(f"No approval has the id {approval_id}.")


class ApprovalService:
    """Asks people and takes their answers.

    `work_of` routes and checks what is asked about, `terms_of` checks its `AskedTerms`, and `rule` rules about it.
    """

    def __init__(self, pool: Pool, work_of: WorkOf, terms_of: TermsOf, rule: RuleWork, giver: Wake) -> None:
        self._pool = pool
        self._work_of = work_of
        self._terms_of = terms_of
        self._rule = rule
        self._giver = giver

    async def request(
        self,
        work_type: str,
        parameters: Mapping[str, Any],
        hints: Mapping[str, Any],
        *,
        note: str = "",
        trace_id: UUID | None = None,
        by: Caller,
        **asked: Unpack[AskedTerms],
    ) -> Discussed:
        """Ask whether work may run on these terms, without dispatching it.

        Raises `RefusedByPolicy`, what a dispatch raises for the same work, and `ApprovalNotPossible` when it needs
        nobody's approval.
        """
        work = self._work_of(work_type, parameters, hints)
        terms = self._terms_of(**asked)
        ruling = self._rule(work)
        if ruling.approval is None:
            raise ApprovalNotPossible(f"The rule {ruling.rule!r} lets this run without an approval: dispatch it.")
        digest = work_digest(
            work_type=work.work_type,
            parameters=work.parameters,
            hints=work.hints,
            target=work.agent_type,
            policy_version=ruling.policy_version,
        )
        new = NewApproval(
            uuid4(),
            digest,
            work.work_type,
            work.agent_type,
            work.parameters,
            work.hints,
            terms,
            ruling.effect,
            ruling.policy_version,
            ruling.rule,
            ruling.approval,
            by,
            trace_id=trace_id,
            note=note,
        )
        async with transaction(self._pool) as db:
            await queries.insert(db, [new])
            await events.append(db, told.requested(new))
        log.info("approval.requested", extra={"approval_id": new.approval_id, "by": by.name})
        return await self.get(new.approval_id)

    async def get(self, approval_id: UUID) -> Discussed:
        """Return an approval with what was said about it; raises `ApprovalNotFound`."""
        async with self._pool.acquire() as db, db.transaction(isolation="repeatable_read", readonly=True):
            return await _discussed(db, approval_id)

    async def newest(self, wanted: ApprovalFilter, *, limit: int) -> list[Approval]:
        """Return matching approvals, newest first."""
        async with self._pool.acquire() as db:
            return await queries.newest(db, wanted, limit=limit)

    async def approve(
        self, approval_id: UUID, *, by: Caller, comment: str = "", until: datetime | None = None
    ) -> Discussed:
        """Say yes; with the last yes that is needed the work may run.

        `until`: when this yes ends to hold, if that is before what the rule allows. The same person again changes
        nothing. Raises `ApprovalNotFound`, `Forbidden` and `ApprovalNotPossible`.
        """
        return await self._answer(approval_id, by=by, yes=True, comment=comment, until=until)

    async def reject(self, approval_id: UUID, *, by: Caller, reason: str) -> Discussed:
        """Say no, which decides it: the task that waits is cancelled. Raises what `approve` raises."""
        return await self._answer(approval_id, by=by, yes=False, comment=reason)

    async def comment(self, approval_id: UUID, *, by: Caller, text: str) -> Discussed:
        """Add a remark to an approval that waits; raises `ApprovalNotFound` and `ApprovalNotPossible`."""
        async with transaction(self._pool) as db:
            approval = (await queries.lock(db, [approval_id])).get(approval_id)
            if approval is None:
                raise ApprovalNotFound(approval_id)
            check_open(approval, now=await queries.now(db))
            await queries.add_comment(db, approval_id, by, text)
            answer = await _discussed(db, approval_id)
            await events.append(db, told.told(Kind.APPROVAL_COMMENTED, approval, by=by.name, text=text))
        return answer

    async def _answer(
        self, approval_id: UUID, *, by: Caller, yes: bool, comment: str, until: datetime | None = None
    ) -> Discussed:
        async with transaction(self._pool) as db:
            seen = await queries.find(db, approval_id)
            if seen is None:
                raise ApprovalNotFound(approval_id)
            task = await self._hold(db, seen)
            approval = (await queries.lock(db, [approval_id]))[approval_id]
            votes = await queries.votes(db, approval_id)
            verdict = judge_vote(approval, votes, by, yes=yes, now=await queries.now(db))
            if isinstance(verdict, Repeats):
                return await _discussed(db, approval_id)
            vote = await queries.add_vote(db, approval_id, by, yes=yes, comment=comment, until=until)
            happened = [
                told.voted(approval, vote),
                *await self._decide(db, approval, task, verdict.state, by=by, comment=comment),
            ]
            answer = await _discussed(db, approval_id)
            await events.append(db, *happened)
        self._giver.ring()
        log.info("approval.answered", extra={"approval_id": approval_id, "by": by.name, "state": verdict.state})
        return answer

    async def _hold(self, db: Connection, seen: Approval) -> WaitingTask | None:
        """Hold and lock the task that waits for an approval, if one does."""
        if seen.task_id is None or seen.state is not ApprovalState.WAITING:
            return None
        await admission.hold_for(db, [seen.task_id])
        return (await queries.lock_tasks(db, [seen.task_id])).get(seen.task_id)

    async def _decide(
        self,
        db: Connection,
        approval: Approval,
        task: WaitingTask | None,
        state: ApprovalState,
        *,
        by: Caller,
        comment: str,
    ) -> list[NewEvent]:
        """Do what a vote leads to, and return the events of it."""
        match state:
            case ApprovalState.APPROVED:
                await queries.decide(db, approval.approval_id, state)
                if task is not None:
                    await self._let_go(db, task)
                return [told.told(Kind.APPROVAL_APPROVED, approval, by=by.name)]
            case ApprovalState.REJECTED:
                await queries.decide(db, approval.approval_id, state, reason=comment)
                rejected = told.told(Kind.APPROVAL_REJECTED, approval, by=by.name, reason=comment)
                if task is None:
                    return [rejected]
                next_status(task.status, Change.REJECT)
                reason = f"rejected by {by.name}: {comment}"
                return [rejected, *await self._end(db, {task.task_id: task}, {task.task_id: reason}, by=by.name)]
            case _:
                return []

    async def _let_go(self, db: Connection, task: WaitingTask) -> None:
        """Let a locked task wait for an agent, or for its keys."""
        next_status(task.status, Change.APPROVE)
        await queries.let_go(db, task.task_id)
        if has_keys(task):
            await admission.admit(db, Keys.of([task]))

    async def expire(self, *, limit: int) -> int:
        """Let lapse what nobody answered in time, and what was approved and not begun in time; return how many."""
        async with transaction(self._pool) as db:
            found = await queries.overdue(db, limit=limit)
            if not found:
                return 0
            task_ids = [task_id for _, task_id in found if task_id is not None]
            await admission.hold_for(db, task_ids)
            tasks = await queries.lock_tasks(db, task_ids)
            seen = dict(found)
            locked = await queries.lock_overdue(db, list(seen))
            # One that was used for a task meanwhile lapses in the next turn, which locks that task.
            lapsed = [one for one in locked if one.task_id == seen[one.approval_id]]
            reasons = {approval.approval_id: _lapsed(approval) for approval in lapsed}
            await queries.lapse(db, reasons)
            # What was approved and has begun is used, and is not found here.
            held = {one.task_id: reasons[one.approval_id] for one in lapsed if one.task_id is not None}
            ended = await self._end(db, tasks, held, by=EXPIRY)
            told_of = [
                told.told(Kind.APPROVAL_EXPIRED, one, by=EXPIRY, reason=reasons[one.approval_id]) for one in lapsed
            ]
            await events.append(db, *told_of, *ended)
        for approval in lapsed:
            log.info("approval.expired", extra={"approval_id": approval.approval_id, "task_id": approval.task_id})
        if lapsed:
            self._giver.ring()
        return len(lapsed)

    async def _end(
        self, db: Connection, tasks: Mapping[UUID, WaitingTask], reasons: Mapping[UUID, str], *, by: str
    ) -> list[NewEvent]:
        """Cancel those of the locked tasks that still wait, let the next of their keys go, and return the events."""
        waiting = (Status.AWAITING_APPROVAL, Status.PENDING)
        over = {task_id: tasks[task_id] for task_id in reasons if task_id in tasks and tasks[task_id].status in waiting}
        if not over:
            return []
        code = ErrorCode.APPROVAL_DENIED
        await queries.cancel_tasks(db, {task_id: reasons[task_id] for task_id in over}, error_code=code)
        await admission.admit(db, Keys.of(over.values()))
        return [told.task_ended(task, by=by, code=code, reason=reasons[task_id]) for task_id, task in over.items()]


async def _discussed(db: Connection, approval_id: UUID) -> Discussed:
    approval = await queries.find(db, approval_id)
    if approval is None:
        raise ApprovalNotFound(approval_id)
    return Discussed(approval, await queries.votes(db, approval_id), await queries.comments(db, approval_id))


def _lapsed(approval: Approval) -> str:
    if approval.state is ApprovalState.WAITING:
        return f"not approved in time: {approval.yes} of {approval.approvers} said yes"
    return f"approved, and not begun within {approval.valid_for.total_seconds() / 60:g} minutes"
