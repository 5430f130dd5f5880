"""The REST endpoints of runs: start, list, look, cancel, try again, abandon, approve, reject, and what they keep."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query, Request

from common.errors import InvalidField
from common.ids import new_request_id
from common.plans.status import RunStatus
from common.rest.artifacts import ArtifactList
from common.rest.runs import (
    LONGEST_RUN_NAME,
    SERVICE_KEY,
    Run,
    RunApprove,
    RunPage,
    RunReject,
    RunRequest,
    RunRetry,
    RunSummary,
)
from orchestrator.artifacts.answers import listed
from orchestrator.artifacts.api import FromStore
from orchestrator.http.context import trace_of
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.http.pagination import decode_cursor, encode_cursor
from orchestrator.http.routes import Router
from orchestrator.http.strict import Digits
from orchestrator.identities.access import READ, MayApprove, MayDispatch, MayOperate
from orchestrator.runs.answers import run_of, summary_of
from orchestrator.runs.model import RunFilter
from orchestrator.runs.service import RunService

Responses = dict[int | str, dict[str, Any]]

LONGEST_SERVICE = 200

NOT_FOUND: Responses = {404: {"content": ERROR_CONTENT, "description": "There is no such run (2010)."}}
NOT_POSSIBLE: Responses = {
    **NOT_FOUND,
    409: {"content": ERROR_CONTENT, "description": "The run does not stand so that this can be done (2011)."},
}
REFUSED: Responses = {
    403: {"content": ERROR_CONTENT, "description": "The policy does not let a step run at all (3001)."},
    409: {"content": ERROR_CONTENT, "description": "The id is taken by another run (1003)."},
}
ANSWERED: Responses = {
    **NOT_FOUND,
    403: {"content": ERROR_CONTENT, "description": "Who asks may not answer this (4003)."},
    409: {
        "content": ERROR_CONTENT,
        "description": "The run does not wait for it, or waits for several and none is named (2011); or it is answered "
        "(3003).",
    },
}

router = Router(
    prefix="/api/v1/runs",
    tags=["runs"],
    responses={
        422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
        500: {"content": ERROR_CONTENT},
        503: {"content": ERROR_CONTENT},
    },
)


async def get_runs(request: Request) -> RunService:
    """Return the run service of the running app."""
    service: RunService = request.app.state.runs
    return service


Runs = Annotated[RunService, Depends(get_runs)]


@router.post("", status_code=201, summary="Start a run", responses={**REFUSED})
async def start_run(order: RunRequest, request: Request, runs: Runs, caller: MayDispatch) -> RunSummary:
    """Run a plan: each of its steps is a task, dispatched when what it needs is over.

    The same `run_id` or `request_id` with the same content is the same run and gets the same answer. A mistake in any
    step, and work that the policy refuses, is told now, as far as it does not depend on what earlier steps return.
    """
    if order.key is not None and order.key.startswith(SERVICE_KEY):
        raise InvalidField("key", f"must not begin with {SERVICE_KEY!r}, which names the repairs of a service")
    started = await runs.start(
        order.plan,
        order.inputs,
        run_id=order.run_id,
        request_id=order.request_id or new_request_id(),
        trace_id=order.trace_id or trace_of(request.scope),
        requested_by=caller,
        name=order.name,
        key=order.key,
    )
    return summary_of(started)


@router.get("", dependencies=[READ], summary="List runs, newest first")
async def list_runs(
    runs: Runs,
    status: Annotated[
        RunStatus | None,
        Query(description="pending, running, awaiting_approval, succeeded, failed, rolled_back or cancelled"),
    ] = None,
    name: Annotated[str | None, Query(max_length=LONGEST_RUN_NAME, description="Called exactly so.")] = None,
    service: Annotated[
        str | None, Query(max_length=LONGEST_SERVICE, description="Repairs of exactly this service.")
    ] = None,
    limit: Annotated[Digits, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the last page.")] = None,
) -> RunPage:
    """Return the runs that match everything given, a page at a time."""
    before = None if cursor is None else decode_cursor(cursor)
    page = await runs.newest(RunFilter(status, name, service, before), limit=limit)
    last = page.rows[-1] if page.has_more else None
    return RunPage(
        items=[summary_of(run) for run in page.rows],
        next_cursor=None if last is None else encode_cursor(last.created_at, last.run_id),
    )


@router.get("/{run_id}", dependencies=[READ], summary="One run with its steps", responses={**NOT_FOUND})
async def get_run(run_id: UUID, runs: Runs) -> Run:
    """Return a run with its plan and how each step stands."""
    return run_of(await runs.get(run_id))


@router.get("/{run_id}/artifacts", dependencies=[READ], summary="What the tasks of a run keep", responses={**NOT_FOUND})
async def list_run_artifacts(run_id: UUID, runs: Runs, artifacts: FromStore) -> ArtifactList:
    """Return the files that the tasks of a run keep, oldest first, also those that are missing, and why."""
    await runs.summary(run_id)
    return listed(await artifacts.service.of_run(run_id), artifacts.links)


@router.post("/{run_id}/cancel", summary="Cancel a run", responses={**NOT_POSSIBLE})
async def cancel_run(run_id: UUID, runs: Runs, caller: MayDispatch) -> RunSummary:
    """Have a run end: its tasks are cancelled, then what it did is undone. It is cancelled when that is over."""
    return summary_of(await runs.cancel(run_id, by=caller))


@router.post("/{run_id}/retry", summary="Try a run again", responses={**NOT_POSSIBLE})
async def retry_run(run_id: UUID, runs: Runs, caller: MayDispatch, order: RunRetry | None = None) -> RunSummary:
    """Have a run that has ended go on from a step, by default from all that failed; every try keeps its own rows.

    What succeeded before is kept, unless it was undone or comes after that step.
    """
    given = order or RunRetry()
    return summary_of(await runs.retry(run_id, by=caller, from_step=given.from_step, reason=given.reason))


@router.post("/{run_id}/abandon", summary="End a run as it stands", responses={**NOT_POSSIBLE})
async def abandon_run(run_id: UUID, runs: Runs, caller: MayOperate) -> RunSummary:
    """Have a run end without undoing anything, and without waiting for a host that may never answer.

    For a run that a person will set right by hand: its tasks are cancelled, and it has failed.
    """
    return summary_of(await runs.abandon(run_id, by=caller))


@router.post("/{run_id}/approve", summary="Say yes to what a run waits for", responses={**ANSWERED})
async def approve_run(run_id: UUID, runs: Runs, caller: MayApprove, answer: RunApprove | None = None) -> RunSummary:
    """Say yes to the approval that a run waits for, which shows what exactly would run; of several to the named one."""
    given = answer or RunApprove()
    return summary_of(await runs.approve(run_id, by=caller, comment=given.comment, approval_id=given.approval_id))


@router.post("/{run_id}/reject", summary="Say no to what a run waits for", responses={**ANSWERED})
async def reject_run(run_id: UUID, runs: Runs, caller: MayApprove, answer: RunReject) -> RunSummary:
    """Say no to the approval that a run waits for, or to one of several. Its task is cancelled with the reason."""
    return summary_of(await runs.reject(run_id, by=caller, reason=answer.reason, approval_id=answer.approval_id))
