"""The REST endpoints of approvals: ask, list, look, approve, reject, comment."""

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query, Request

from common.rest.approvals import (
    ApprovalDetail,
    ApprovalPage,
    ApprovalRequest,
    ApprovalState,
    ApproveRequest,
    CommentRequest,
    RejectRequest,
)
from orchestrator.approvals import answers
from orchestrator.approvals.model import ApprovalFilter
from orchestrator.approvals.service import ApprovalService
from orchestrator.http.context import trace_of
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.http.pagination import decode_cursor, encode_cursor
from orchestrator.http.routes import Router
from orchestrator.http.strict import Digits
from orchestrator.identities.access import READ, MayApprove, MayDispatch, MayRead

Responses = dict[int | str, dict[str, Any]]

NOT_FOUND: Responses = {404: {"content": ERROR_CONTENT, "description": "There is no such approval (3002)."}}
ANSWERED: Responses = {
    **NOT_FOUND,
    403: {"content": ERROR_CONTENT, "description": "Who asks may not answer this (4003)."},
    409: {"content": ERROR_CONTENT, "description": "It does not wait any more (3003)."},
}
REFUSED: Responses = {
    400: {"content": ERROR_CONTENT, "description": "The work type is not known (1001)."},
    403: {"content": ERROR_CONTENT, "description": "The policy does not let it run at all (3001)."},
    409: {"content": ERROR_CONTENT, "description": "It needs no approval (3003)."},
}

router = Router(
    prefix="/api/v1/approvals",
    tags=["approvals"],
    responses={
        422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
        500: {"content": ERROR_CONTENT},
        503: {"content": ERROR_CONTENT},
    },
)


async def get_approvals(request: Request) -> ApprovalService:
    """Return the approval service of the running app."""
    service: ApprovalService = request.app.state.approvals
    return service


Approvals = Annotated[ApprovalService, Depends(get_approvals)]


@router.get("", dependencies=[READ], summary="List approvals, newest first")
async def list_approvals(
    service: Approvals,
    state: Annotated[
        ApprovalState | None, Query(description="waiting, approved, used, rejected, expired, cancelled")
    ] = None,
    task_id: UUID | None = None,
    trace_id: UUID | None = None,
    limit: Annotated[Digits, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the last page.")] = None,
) -> ApprovalPage:
    """Return the approvals that match everything given, without the work, a page at a time."""
    before = None if cursor is None else decode_cursor(cursor)
    found = await service.newest(ApprovalFilter(state, task_id, trace_id, before), limit=limit + 1)
    page, last = found[:limit], found[limit - 1] if len(found) > limit else None
    return ApprovalPage(
        items=[answers.approval(approval) for approval in page],
        next_cursor=None if last is None else encode_cursor(last.created_at, last.approval_id),
    )


@router.post("", status_code=201, summary="Ask beforehand", responses={**REFUSED})
async def request_approval(
    order: ApprovalRequest, request: Request, service: Approvals, caller: MayDispatch
) -> ApprovalDetail:
    """Ask whether work may run, without dispatching it.

    Once it is approved, a dispatch by the same person or service of exactly this work on the same terms may name it as
    `approval_id`; it counts once.
    """
    hints = order.hints.model_dump(mode="json", exclude_none=True)
    trace_id = order.trace_id or trace_of(request.scope)
    asked = await service.request(
        order.work_type,
        order.parameters,
        hints,
        note=order.note,
        trace_id=trace_id,
        by=caller,
        priority=order.priority,
        idempotent=order.idempotent,
        max_attempts=order.max_attempts,
        ordering_key=order.ordering_key,
        concurrency_key=order.concurrency_key,
        concurrency_limit=order.concurrency_limit,
        expires_after=(None if order.expires_after_seconds is None else timedelta(seconds=order.expires_after_seconds)),
    )
    return answers.detail(asked)


@router.get("/{approval_id}", dependencies=[READ], summary="One approval with the work", responses={**NOT_FOUND})
async def get_approval(approval_id: UUID, service: Approvals) -> ApprovalDetail:
    """Return an approval with exactly what will run, and with what people said."""
    return answers.detail(await service.get(approval_id))


@router.post("/{approval_id}/approve", summary="Say yes", responses={**ANSWERED})
async def approve(
    approval_id: UUID, service: Approvals, caller: MayApprove, answer: ApproveRequest | None = None
) -> ApprovalDetail:
    """Say yes. With the last yes that is needed the work may run; the same person again changes nothing."""
    comment = "" if answer is None else answer.comment
    return answers.detail(await service.approve(approval_id, by=caller, comment=comment))


@router.post("/{approval_id}/reject", summary="Say no", responses={**ANSWERED})
async def reject(approval_id: UUID, service: Approvals, caller: MayApprove, answer: RejectRequest) -> ApprovalDetail:
    """Say no, which decides it. The task that waits is cancelled with the reason."""
    return answers.detail(await service.reject(approval_id, by=caller, reason=answer.reason))


@router.post("/{approval_id}/comment", summary="Say something", responses={**ANSWERED})
async def comment_on_approval(
    approval_id: UUID, service: Approvals, caller: MayRead, remark: CommentRequest
) -> ApprovalDetail:
    """Add a remark to an approval that waits; it decides nothing."""
    return answers.detail(await service.comment(approval_id, by=caller, text=remark.text))
