"""The endpoint for auditors: reading only."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query, Request
from pydantic import AfterValidator, StringConstraints

from common.json_rules import check_text
from common.moment import Moment
from common.rest.audit import AuditEvent, AuditPage, AuditResult
from common.rest.events import Event
from common.rest.identities import Permission
from orchestrator.audit.model import Question, Row
from orchestrator.audit.service import AuditService
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.http.routes import Router
from orchestrator.http.strict import Digits
from orchestrator.identities.access import requires

PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"content": ERROR_CONTENT, "description": "Nobody knows who asks (4001)."},
    403: {"content": ERROR_CONTENT, "description": "The caller may not audit (4003)."},
    422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
    500: {"content": ERROR_CONTENT},
    503: {"content": ERROR_CONTENT},
}
MAX_SEQ = 2**62

Name = Annotated[str, StringConstraints(max_length=200), AfterValidator(check_text)]


router = Router(prefix="/api/v1", tags=["audit"], dependencies=[requires(Permission.AUDIT)], responses=PROBLEMS)


async def get_audit(request: Request) -> AuditService:
    """Return the service of the running app."""
    service: AuditService = request.app.state.audit
    return service


Audit = Annotated[AuditService, Depends(get_audit)]


@router.get("/audit", summary="Who did what")
async def query_audit_log(
    service: Audit,
    actor: Annotated[Name | None, Query(description="A caller's name, an agent's id, a loop.")] = None,
    task_id: UUID | None = None,
    trace_id: UUID | None = None,
    agent_id: UUID | None = None,
    kind: Annotated[list[Name] | None, Query(max_length=50, description="Repeat it for more.")] = None,
    result: Annotated[list[AuditResult] | None, Query(description="Only ends like this. Repeat it for more.")] = None,
    work_type: Name | None = None,
    since: Annotated[Moment | None, Query(description="Only from then on.")] = None,
    until: Annotated[Moment | None, Query(description="Only before then.")] = None,
    after: Annotated[Digits, Query(ge=0, le=MAX_SEQ, description="Only events numbered above this.")] = 0,
    limit: Annotated[Digits, Query(ge=1, le=1000)] = 100,
) -> AuditPage:
    """Return the events that match, oldest first. An answer with few or no items may still have a `next_after`."""
    question = Question(
        actor=actor,
        task_id=task_id,
        trace_id=trace_id,
        agent_id=agent_id,
        kinds=tuple(kind or ()),
        results=tuple(result or ()),
        work_type=work_type,
        since=since,
        until=until,
    )
    page = await service.ask(question, after=after, limit=limit)
    return AuditPage(items=[_shown(row) for row in page.rows], next_after=page.next_after)


def _shown(row: Row) -> AuditEvent:
    event = dict(Event.model_validate(row.event))
    return AuditEvent(**event, hash=None if row.hash is None else row.hash.hex())
