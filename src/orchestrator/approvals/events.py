"""The events of approvals. Those of a task's approval carry the task and its trace."""

from typing import Any
from uuid import UUID

from orchestrator.approvals.model import Approval, NewApproval, Vote, WaitingTask
from orchestrator.events.model import Kind, NewEvent


def requested(new: NewApproval) -> NewEvent:
    """Return the event of a question; it names the token with which it was asked, and who made that."""
    asker = new.requested_by
    return NewEvent(
        Kind.APPROVAL_REQUESTED,
        actor=asker.name,
        task_id=new.task_id,
        trace_id=new.trace_id,
        data={
            "approval_id": str(new.approval_id),
            "digest": new.digest.hex(),
            "approved_digest": new.approved_digest.hex(),
            "terms": dict(new.terms),
            "work_type": new.work_type,
            "target": new.target,
            "policy_version": new.policy_version,
            "rule": new.rule,
            "approvers": new.demand.approvers,
            "roles": list(new.demand.roles),
            "token_id": None if asker.token_id is None else str(asker.token_id),
            "token_created_by": None if asker.token is None else asker.token.created_by,
        },
    )


def told(kind: Kind, approval: Approval, *, by: str, **data: Any) -> NewEvent:
    """Return an event about an approval that exists."""
    return NewEvent(
        kind,
        actor=by,
        task_id=approval.task_id,
        trace_id=approval.trace_id,
        data={
            "approval_id": str(approval.approval_id),
            "digest": approval.digest.hex(),
            "approved_digest": approval.approved_digest.hex(),
            **data,
        },
    )


def voted(approval: Approval, vote: Vote) -> NewEvent:
    """Return the event of a vote; the token is named by its id."""
    return told(
        Kind.APPROVAL_VOTED,
        approval,
        by=vote.name,
        vote="yes" if vote.yes else "no",
        comment=vote.comment,
        **({} if vote.until is None else {"until": vote.until.isoformat()}),
        token_id=str(vote.token_id),
        token_created_by=vote.token_created_by,
        token_age_seconds=vote.token_age_seconds,
    )


def cancelled(approval_id: UUID, task_id: UUID, trace_id: UUID | None, *, by: str) -> NewEvent:
    return NewEvent(
        Kind.APPROVAL_CANCELLED, actor=by, task_id=task_id, trace_id=trace_id, data={"approval_id": str(approval_id)}
    )


def task_ended(task: WaitingTask, *, by: str, code: int, reason: str) -> NewEvent:
    """Return the event of a task that is cancelled because it was not allowed to run, or not in time."""
    return NewEvent(
        Kind.TASK_CANCELLED,
        actor=by,
        task_id=task.task_id,
        trace_id=task.trace_id,
        request_id=task.request_id,
        attempt=task.attempt or None,
        data={
            "was": task.status,
            "exit_code": None,
            "duration_ms": None,
            "error_code": code,
            "error_message": reason,
        },
    )
