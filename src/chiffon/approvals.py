"""What people do about approvals through the client: ask, look, say yes or no, remark."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from chiffon.http import Http
from common.rest.approvals import (
    ApprovalDetail,
    ApprovalPage,
    ApprovalRequest,
    ApproveRequest,
    CommentRequest,
    RejectRequest,
)
from common.rest.bodies import body_of


class Approvals:
    """A part of `Client`; see there for what calls raise."""

    _http: Http

    async def approvals(
        self,
        *,
        state: str | None = None,
        task_id: UUID | str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> ApprovalPage:
        """Return a page of approvals, newest first; `next_cursor` leads to the next one."""
        query = {
            "state": state,
            "task_id": None if task_id is None else str(task_id),
            "limit": limit,
            "cursor": cursor,
        }
        return ApprovalPage.model_validate(await self._http.get("/api/v1/approvals", query))

    async def approval(self, approval_id: UUID | str) -> ApprovalDetail:
        """Return an approval with exactly what will run."""
        return ApprovalDetail.model_validate(await self._http.get(f"/api/v1/approvals/{approval_id}"))

    async def ask(
        self,
        work_type: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        hints: Mapping[str, Any] | None = None,
        priority: int | None = None,
        idempotent: bool = False,
        max_attempts: int | None = None,
        ordering_key: str | None = None,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
        expires_after: timedelta | None = None,
        note: str = "",
    ) -> ApprovalDetail:
        """Ask for an approval of work on these terms without dispatching it; the dispatch must name the same."""
        body = body_of(
            ApprovalRequest,
            work_type=work_type,
            parameters=parameters,
            hints=hints,
            priority=priority,
            idempotent=idempotent,
            max_attempts=max_attempts,
            ordering_key=ordering_key,
            concurrency_key=concurrency_key,
            concurrency_limit=concurrency_limit,
            expires_after_seconds=None if expires_after is None else expires_after.total_seconds(),
            note=note,
        )
        return ApprovalDetail.model_validate(await self._http.post("/api/v1/approvals", body, repeatable=False))

    async def approve(self, approval_id: UUID | str, *, comment: str = "") -> ApprovalDetail:
        """Say yes; saying it again changes nothing."""
        return await self._answer(approval_id, "approve", body_of(ApproveRequest, comment=comment), repeatable=True)

    async def reject(self, approval_id: UUID | str, *, reason: str) -> ApprovalDetail:
        """Say no, which decides it; saying it again changes nothing."""
        return await self._answer(approval_id, "reject", body_of(RejectRequest, reason=reason), repeatable=True)

    async def comment(self, approval_id: UUID | str, text: str) -> ApprovalDetail:
        """Add a remark."""
        return await self._answer(approval_id, "comment", body_of(CommentRequest, text=text), repeatable=False)

    async def _answer(
        self, approval_id: UUID | str, how: str, body: dict[str, Any], *, repeatable: bool
    ) -> ApprovalDetail:
        found = await self._http.post(f"/api/v1/approvals/{approval_id}/{how}", body, repeatable=repeatable)
        return ApprovalDetail.model_validate(found)
