"""The REST endpoints: each translates a request into a call of the service, and its answer back."""

import asyncio
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import ValidationError

from common.errors import ChiffonError
from common.lifecycle import Status
from common.messages import AgentStatus, Stream
from common.moment import Moment
from common.work import AGENT_TYPE_PATTERN, AnyWorkType
from orchestrator.events.schemas import EventOut, EventPage
from orchestrator.http.context import trace_of
from orchestrator.http.direct import direct
from orchestrator.http.errors import ERROR_CONTENT, ErrorResponse, problem_of, validation_problem
from orchestrator.http.pagination import decode_cursor, encode_cursor
from orchestrator.http.strict import Digits
from orchestrator.identities.access import READ, MayDispatch
from orchestrator.identities.model import Caller
from orchestrator.output.schemas import OutputPage
from orchestrator.registry.api import Pools
from orchestrator.registry.schemas import Agent
from orchestrator.service import OrchestratorService
from orchestrator.tasks.model import TaskFilter
from orchestrator.tasks.schemas import (
    BatchItem,
    BatchRequest,
    BatchResponse,
    CancelResponse,
    DispatchRequest,
    DispatchResponse,
    TaskPage,
    TaskStatus,
    TaskSummary,
)
from orchestrator.why.schemas import WhyResponse

__all__ = [
    "Agent",
    "DispatchRequest",
    "DispatchResponse",
    "ErrorResponse",
    "TaskStatus",
    "get_orchestrator_service",
    "router",
]

MAX_OFFSET = 2**63 - 1
PAGE_BYTES = 262_144

Responses = dict[int | str, dict[str, Any]]

INVALID: Responses = {422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."}}
NOT_FOUND: Responses = {404: {"content": ERROR_CONTENT, "description": "There is no such task (2001)."}}
CONFLICT: Responses = {409: {"content": ERROR_CONTENT, "description": "The id is taken by other content (1003)."}}
UNKNOWN: Responses = {400: {"content": ERROR_CONTENT, "description": "The work type is not known (1001)."}}
ENDED: Responses = {400: {"content": ERROR_CONTENT, "description": "The task has ended (2002)."}}


router = APIRouter(prefix="/api/v1", responses={500: {"content": ERROR_CONTENT}, 503: {"content": ERROR_CONTENT}})


async def get_orchestrator_service(request: Request) -> OrchestratorService:
    """Return the service of the running app."""
    service: OrchestratorService = request.app.state.orchestrator_service
    return service


Service = Annotated[OrchestratorService, Depends(get_orchestrator_service)]


async def _dispatch(
    work: DispatchRequest, service: OrchestratorService, trace_id: UUID, caller: Caller
) -> DispatchResponse:
    known = await service.dispatch_work(
        work.task_id,
        work.work_type,
        work.parameters,
        work.priority,
        hints=work.hints.model_dump(mode="json", exclude_none=True),
        request_id=work.request_id,
        trace_id=work.trace_id or trace_id,
        idempotent=work.idempotent,
        max_attempts=work.max_attempts,
        ordering_key=work.ordering_key,
        concurrency_key=work.concurrency_key,
        concurrency_limit=work.concurrency_limit,
        expires_after=None if work.expires_after_seconds is None else timedelta(seconds=work.expires_after_seconds),
        approval_id=work.approval_id,
        requested_by=caller,
    )
    return DispatchResponse.of(known)


@router.post(
    "/dispatch",
    tags=["tasks"],
    summary="Dispatch work",
    response_model_exclude_none=True,
    responses={**UNKNOWN, **CONFLICT, **INVALID},
)
@direct
async def dispatch(work: DispatchRequest, request: Request, service: Service, caller: MayDispatch) -> DispatchResponse:
    """Store work and have an agent do it.

    When this answers with 200 the work is in the ledger and will not be lost. When the answer is lost, send the same
    again: the same `task_id` or `request_id` with the same content is the same task and gets the same answer.
    """
    return await _dispatch(work, service, trace_of(request.scope), caller)


@router.post("/dispatch/batch", tags=["tasks"], summary="Dispatch up to 1,000 at once", responses={**INVALID})
@direct
async def dispatch_batch(batch: BatchRequest, request: Request, service: Service, caller: MayDispatch) -> BatchResponse:
    """Dispatch many; each item is answered on its own, so one that is refused does not keep the others back.

    Items without a `trace_id` share that of the request, so that one subscription follows them all.
    """
    trace_id = trace_of(request.scope)
    items = (_batch_item(index, item, service, trace_id, caller) for index, item in enumerate(batch.tasks))
    return BatchResponse(results=list(await asyncio.gather(*items)))


async def _batch_item(
    index: int, item: dict[str, object], service: OrchestratorService, trace_id: UUID, caller: Caller
) -> BatchItem:
    try:
        task = await _dispatch(DispatchRequest.model_validate(item), service, trace_id, caller)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problem = validation_problem(found, trace_id, item, DispatchRequest)
        return BatchItem(index=index, status_code=problem.status, error=problem)
    except ChiffonError as error:
        problem = problem_of(error, trace_id)
        return BatchItem(index=index, status_code=problem.status, error=problem)
    return BatchItem(index=index, status_code=200, task=task)


@router.get(
    "/status/{task_id}",
    dependencies=[READ],
    tags=["tasks"],
    summary="Where a task stands",
    responses={**NOT_FOUND, **INVALID},
)
async def status(task_id: UUID, service: Service) -> TaskStatus:
    """Return a task with the end of its output."""
    task, output = await service.get_task_status(task_id)
    return TaskStatus.of(task, output)


@router.get("/tasks", dependencies=[READ], tags=["tasks"], summary="List tasks, newest first", responses={**INVALID})
async def tasks(
    service: Service,
    status: Annotated[
        list[Status] | None, Query(description="Only tasks that stand there; repeat it for more.")
    ] = None,
    work_type: AnyWorkType | None = None,
    agent_type: Annotated[str | None, Query(pattern=AGENT_TYPE_PATTERN)] = None,
    agent_id: Annotated[UUID | None, Query(description="Run by this agent, now or last.")] = None,
    trace_id: UUID | None = None,
    created_after: Annotated[Moment | None, Query(description="With its zone, as in 2026-11-22T10:00:00Z.")] = None,
    limit: Annotated[Digits, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the last page.")] = None,
) -> TaskPage:
    """Return the tasks that match everything given, a page at a time."""
    before = None if cursor is None else decode_cursor(cursor)
    wanted = TaskFilter(status, work_type, agent_type, agent_id, trace_id, created_after, before)
    found = await service.list_tasks(wanted, limit=limit + 1)
    page, last = found[:limit], found[limit - 1] if len(found) > limit else None
    return TaskPage(
        items=[TaskSummary.model_validate(task) for task in page],
        next_cursor=None if last is None else encode_cursor(last.created_at, last.task_id),
    )


@router.get(
    "/tasks/{task_id}/output",
    dependencies=[READ],
    tags=["tasks"],
    summary="What a task wrote",
    responses={**NOT_FOUND, **INVALID},
)
async def output(
    task_id: UUID,
    service: Service,
    stream: Stream = Stream.STDOUT,
    offset: Annotated[Digits, Query(ge=0, le=MAX_OFFSET, description="Bytes of UTF-8 before the part.")] = 0,
    limit: Annotated[Digits, Query(ge=1, le=4 * PAGE_BYTES, description="At most so many bytes.")] = PAGE_BYTES,
    attempt: Annotated[Digits | None, Query(ge=1, le=32_767, description="Which attempt; the last by default.")] = None,
) -> OutputPage:
    """Return a part of one stream of a task's output, while it runs or afterwards."""
    return OutputPage.of(await service.read_output(task_id, attempt=attempt, stream=stream, offset=offset, limit=limit))


@router.get(
    "/tasks/{task_id}/events",
    dependencies=[READ],
    tags=["tasks"],
    summary="What happened to a task",
    responses={**NOT_FOUND},
)
async def events(
    task_id: UUID,
    service: Service,
    after: Annotated[Digits, Query(ge=0, le=MAX_OFFSET, description="Only events numbered above this.")] = 0,
    limit: Annotated[Digits, Query(ge=1, le=1000)] = 100,
) -> EventPage:
    """Return the events of a task, oldest first."""
    found = await service.list_events(task_id, after=after, limit=limit)
    return EventPage(
        items=[EventOut.model_validate(event) for event in found], next_after=found[-1].seq if found else after
    )


@router.get(
    "/tasks/{task_id}/why",
    dependencies=[READ],
    tags=["tasks"],
    summary="Why a task waits",
    response_model_exclude_none=True,
    responses={**NOT_FOUND, **INVALID},
)
async def why(task_id: UUID, service: Service) -> WhyResponse:
    """Return everything that is in the way of a task now: others of its keys, its retry, the broker, the agents.

    A task that runs or has ended does not wait; its only entry says so.
    """
    return WhyResponse.model_validate(await service.explain_wait(task_id))


@router.get("/agents", dependencies=[READ], tags=["agents"], summary="List agents", responses={**INVALID})
async def agents(
    service: Service,
    pools: Pools,
    agent_type: Annotated[str | None, Query(pattern=AGENT_TYPE_PATTERN)] = None,
    status: Annotated[AgentStatus | None, Query(description="online, busy, draining or offline")] = None,
) -> list[Agent]:
    """Return the agents that ever registered, and how each is."""
    found = await service.list_agents(agent_type=agent_type, status=status)
    return [Agent.of(agent, pools) for agent in found]


@router.post("/cancel/{task_id}", tags=["tasks"], summary="Cancel a task", responses={**ENDED, **NOT_FOUND, **INVALID})
async def cancel(task_id: UUID, service: Service, caller: MayDispatch) -> CancelResponse:
    """Cancel a task that has not ended; one that is cancelled already stays so.

    It is cancelled when this answers: nobody can claim it any more, and no late result changes it. An agent that runs
    it is told to stop it, which takes a moment.
    """
    await service.cancel_task(task_id, by=caller.name)
    return CancelResponse(task_id=task_id)
