"""The REST endpoints that act on tasks which exist: cancel whole traces, run a task once more."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request

from common.rest.tasks import CancelledTrace, DispatchResponse, RerunRequest
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.http.routes import Router
from orchestrator.identities.access import MayDispatch
from orchestrator.tasks.answers import dispatched
from orchestrator.tasks.control import TaskControl

Responses = dict[int | str, dict[str, Any]]

PROBLEMS: Responses = {
    404: {"content": ERROR_CONTENT, "description": "There is no such task (2001)."},
    422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
    500: {"content": ERROR_CONTENT},
    503: {"content": ERROR_CONTENT},
}
NOT_ENDED: Responses = {
    400: {"content": ERROR_CONTENT, "description": "The task has not ended (2002)."},
    409: {"content": ERROR_CONTENT, "description": "The id is taken by other content (1003)."},
}

router = Router(prefix="/api/v1", tags=["tasks"], responses=PROBLEMS)


async def get_task_control(request: Request) -> TaskControl:
    """Return the control of the running app."""
    control: TaskControl = request.app.state.task_control
    return control


Control = Annotated[TaskControl, Depends(get_task_control)]


@router.post("/traces/{trace_id}/cancel", summary="Cancel everything that belongs together")
async def cancel_trace(trace_id: UUID, control: Control, caller: MayDispatch) -> CancelledTrace:
    """Cancel every task of a trace that has not ended, some hundred at a time.

    When this answers, none of them can be claimed any more; agents that run some are told to stop them.
    """
    return CancelledTrace.model_validate(await control.cancel_trace(trace_id, by=caller.name))


@router.post("/tasks/{task_id}/rerun", summary="Run a task once more", responses={**NOT_ENDED})
async def rerun_task(
    task_id: UUID, control: Control, caller: MayDispatch, order: RerunRequest | None = None
) -> DispatchResponse:
    """Dispatch the content of a task that has ended as a new task, which names the old one as `rerun_of`.

    Sent again with the same `task_id` or `request_id`, it is the same new task and gets the same answer.
    """
    ids = order or RerunRequest()
    known = await control.rerun(
        task_id, as_task=ids.task_id, request_id=ids.request_id, trace_id=ids.trace_id, by=caller
    )
    return dispatched(known)
