"""What people do about approvals through the client: ask, look, say yes or no, remark."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from chiffon.http import Http
from chiffon.models import Answer


class Vote(Answer):
    """What one person said."""

    name: str
    yes: bool
    comment: str
    at: datetime


class Comment(Answer):
    """A remark."""

    name: str
    text: str
    at: datetime


class Approval(Answer):
    """A question to people: may exactly this run? It waits until `expires_at`, and holds until `valid_until`."""

    approval_id: UUID
    state: str
    task_id: UUID | None = None
    trace_id: UUID | None = None
    work_type: str
    target: str
    effect: str
    rule: str
    policy_version: str
    digest: str
    approvers: int
    yes: int
    roles: list[str]
    requested_by: str
    note: str = ""
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None = None
    valid_until: datetime | None = None
    reason: str | None = None


class ApprovalDetail(Approval):
    """An approval with the work, and with what people said. `shown` is the work as text in which nothing is hidden."""

    work: dict[str, Any]
    shown: str
    votes: list[Vote] = Field(default_factory=list)
    comments: list[Comment] = Field(default_factory=list)


class ApprovalPage(Answer):
    items: list[Approval]
    next_cursor: str | None = None


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
        note: str = "",
    ) -> ApprovalDetail:
        """Ask for an approval of work without dispatching it."""
        body = {
            "work_type": work_type,
            "parameters": dict(parameters or {}),
            "hints": dict(hints or {}),
            "note": note,
        }
        return ApprovalDetail.model_validate(await self._http.post("/api/v1/approvals", body, repeatable=False))

    async def approve(self, approval_id: UUID | str, *, comment: str = "") -> ApprovalDetail:
        """Say yes; saying it again changes nothing."""
        return await self._answer(approval_id, "approve", {"comment": comment}, repeatable=True)

    async def reject(self, approval_id: UUID | str, *, reason: str) -> ApprovalDetail:
        """Say no, which decides it; saying it again changes nothing."""
        return await self._answer(approval_id, "reject", {"reason": reason}, repeatable=True)

    async def comment(self, approval_id: UUID | str, text: str) -> ApprovalDetail:
        """Add a remark."""
        return await self._answer(approval_id, "comment", {"text": text}, repeatable=False)

    async def _answer(
        self, approval_id: UUID | str, how: str, body: Mapping[str, Any], *, repeatable: bool
    ) -> ApprovalDetail:
        found = await self._http.post(f"/api/v1/approvals/{approval_id}/{how}", dict(body), repeatable=repeatable)
        return ApprovalDetail.model_validate(found)
