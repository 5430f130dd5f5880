"""Answer the most frequent request, the dispatch of one task, without the router: see docs/decisions/0051.

It stands behind everything that guards the API: the door, the limits and the reader of bodies have done their part.
What is unusual in any way goes on to the route, which answers it.
"""

from pydantic import ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from common.errors import ChiffonError
from common.rest.identities import Permission
from common.rest.tasks import DispatchRequest
from orchestrator.api import dispatch_options
from orchestrator.http.context import trace_of
from orchestrator.http.errors import headers_of, problem_of, response
from orchestrator.http.strict import JSON, body_of
from orchestrator.identities.access import find_caller
from orchestrator.service import OrchestratorService
from orchestrator.tasks.answers import dispatched

PATH = "/api/v1/dispatch"


class Shortcut:
    """Answers a plain dispatch, and hands everything else on to the app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST":
            answer = await _answer(scope)
            if answer is not None:
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _answer(scope: Scope) -> Response | None:
    """Return the answer to a dispatch of one task; None when the route has to look at it."""
    body, caller, app = body_of(scope), find_caller(scope), scope["app"]
    is_usual = body is not None and body.fault is None and not scope["query_string"] and not app.dependency_overrides
    if not is_usual or body is None or caller is None or Permission.DISPATCH not in caller.permissions:
        return None
    try:
        work = DispatchRequest.model_validate(body.value, from_attributes=True)  # as FastAPI does
    except ValidationError:
        return None
    if work.on is not None:
        return None
    service: OrchestratorService = app.state.orchestrator_service
    trace_id = trace_of(scope)
    options = dispatch_options(work, trace_id, caller)
    try:
        known = await service.dispatch_work(work.task_id, work.work_type, work.parameters, work.priority, **options)
    except ChiffonError as error:
        return response(problem_of(error, trace_id), headers_of(error))
    return Response(dispatched(known).model_dump_json(exclude_none=True), media_type=JSON)
