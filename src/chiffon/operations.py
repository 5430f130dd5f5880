"""What people who run Chiffon do through the client: hold agents back, settle dead letters, cancel and repeat work."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from chiffon.http import Http
from common.rest.agents import Agent, NoteRequest, PauseRequest
from common.rest.audit import AuditEvent, AuditPage
from common.rest.bodies import body_of
from common.rest.capacity import Capacity
from common.rest.dead_letters import (
    DeadLetter,
    DeadLetterDetail,
    DeadLetterPage,
    Settled,
    SettleRequest,
    SettleResponse,
)
from common.rest.ops import Executions, QueueSnapshot
from common.rest.tasks import CancelledTrace, DispatchResponse, RerunRequest

# An id as a caller may have it: from an answer, or as text.
AnyId = UUID | str

AUDIT_PAGE = 500


class Operations:
    """A part of `Client`; see there for what calls raise."""

    _http: Http

    async def pause_agent(
        self,
        agent_id: AnyId,
        *,
        note: str = "",
        lasting: timedelta | None = None,
        until: datetime | None = None,
    ) -> Agent:
        """Give an agent no new work for a while, 5 minutes by default; what it runs goes on."""
        minutes = None if lasting is None else round(lasting / timedelta(minutes=1))
        body = body_of(PauseRequest, note=note, minutes=minutes, until=until)
        return Agent.model_validate(await self._http.post(f"/api/v1/agents/{agent_id}/pause", body, repeatable=True))

    async def drain_agent(self, agent_id: AnyId, *, note: str = "") -> Agent:
        """Give an agent no new work, and let it leave when it has done what it runs."""
        body = body_of(NoteRequest, note=note)
        return Agent.model_validate(await self._http.post(f"/api/v1/agents/{agent_id}/drain", body, repeatable=True))

    async def resume_agent(self, agent_id: AnyId) -> Agent:
        """Give an agent work again, whether it was paused, drained or tripped."""
        return Agent.model_validate(await self._http.post(f"/api/v1/agents/{agent_id}/resume", repeatable=True))

    async def capacity(
        self, required: Mapping[str, Any] | None = None, *, agent_type: str | None = None, work_type: str | None = None
    ) -> Capacity:
        """Return which agents could take work with these requirements now."""
        require = [f"{name}={json.dumps(value)}" for name, value in (required or {}).items()]
        query = {"require": require or None, "agent_type": agent_type, "work_type": work_type}
        return Capacity.model_validate(await self._http.get("/api/v1/agents/capacity", query))

    async def forget_agent(self, agent_id: AnyId) -> Agent:
        """Forget an agent that is offline: it is not listed any more, until it is started again."""
        return Agent.model_validate(await self._http.delete(f"/api/v1/agents/{agent_id}"))

    async def queue_snapshot(self) -> QueueSnapshot:
        """Return what waits and runs, at one moment."""
        return QueueSnapshot.model_validate(await self._http.get("/ops/queue"))

    async def executions(self, *, limit: int = 50) -> Executions:
        """Return the work that ended last, the newest end first; at most 200."""
        return Executions.model_validate(await self._http.get("/ops/executions", {"limit": limit}))

    async def audit(
        self, *, after: int = 0, limit: int | None = None, **question: Any
    ) -> AsyncGenerator[AuditEvent, None]:
        """Yield the events of the audit log that match, oldest first, page after page; at most `limit`.

        The question is that of `GET /api/v1/audit`: actor, task_id, trace_id, agent_id, kind, result, work_type, since,
        until.
        """
        query = {name: _as_query(value) for name, value in question.items() if value is not None}
        following: int | None = after
        while following is not None and limit != 0:
            size = AUDIT_PAGE if limit is None else min(limit, AUDIT_PAGE)
            answer = await self._http.get("/api/v1/audit", {**query, "after": following, "limit": size})
            page = AuditPage.model_validate(answer)
            for event in page.items:
                yield event
            limit = None if limit is None else limit - len(page.items)
            following = page.next_after

    async def cancel_trace(self, trace_id: AnyId) -> CancelledTrace:
        """Cancel every task of a trace that has not ended."""
        answer = await self._http.post(f"/api/v1/traces/{trace_id}/cancel", repeatable=False)
        return CancelledTrace.model_validate(answer)

    async def rerun(
        self,
        task_id: AnyId,
        *,
        as_task: AnyId | None = None,
        request_id: AnyId | None = None,
        trace_id: AnyId | None = None,
    ) -> DispatchResponse:
        """Dispatch the content of a task that has ended as a new task.

        The new id is made here when none is given, so that a lost answer is repeated safely.
        """
        body = body_of(RerunRequest, task_id=as_task or uuid4(), request_id=request_id, trace_id=trace_id)
        answer = await self._http.post(f"/api/v1/tasks/{task_id}/rerun", body, repeatable=True)
        return DispatchResponse.model_validate(answer)

    async def dead_letters(
        self, *, state: str | None = None, kind: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> DeadLetterPage:
        """Return a page of dead letters, newest first; `next_cursor` leads to the next one."""
        query = {"state": state, "kind": kind, "limit": limit, "cursor": cursor}
        return DeadLetterPage.model_validate(await self._http.get("/api/v1/dead-letters", query))

    async def dead_letter(self, letter_id: int) -> DeadLetterDetail:
        """Return a dead letter with its body."""
        return DeadLetterDetail.model_validate(await self._http.get(f"/api/v1/dead-letters/{letter_id}"))

    async def replay_dead_letter(self, letter_id: int) -> DeadLetter:
        """Put a message back into the queue that it came from, or run a task once more as a new one."""
        answer = await self._http.post(f"/api/v1/dead-letters/{letter_id}/replay", repeatable=False)
        return DeadLetter.model_validate(answer)

    async def discard_dead_letter(self, letter_id: int) -> DeadLetter:
        """Say that nothing more is to be done about a dead letter."""
        answer = await self._http.post(f"/api/v1/dead-letters/{letter_id}/discard", repeatable=False)
        return DeadLetter.model_validate(answer)

    async def replay_dead_letters(self, ids: Sequence[int]) -> list[Settled]:
        """Replay up to 100 dead letters; each is answered on its own."""
        return await self._settle("replay", ids)

    async def discard_dead_letters(self, ids: Sequence[int]) -> list[Settled]:
        """Discard up to 100 dead letters; each is answered on its own."""
        return await self._settle("discard", ids)

    async def _settle(self, how: str, ids: Sequence[int]) -> list[Settled]:
        body = body_of(SettleRequest, ids=ids)
        answer = await self._http.post(f"/api/v1/dead-letters/{how}", body, repeatable=False)
        return SettleResponse.model_validate(answer).results


def _as_query(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return [str(item) for item in value] if isinstance(value, list | tuple) else str(value)
