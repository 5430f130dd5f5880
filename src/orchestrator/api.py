"""The REST endpoints: each translates a request into a call of the service, and its answer back."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query, Request
from pydantic import ValidationError

from common.errors import ChiffonError, InvalidField
from common.json_text import NotJson, read_json
from common.labels import check_labels, check_task_labels
from common.lifecycle import Status
from common.messages import LONGEST_NAME as LONGEST_IDENTITY
from common.messages import AgentStatus, Stream
from common.moment import Moment
from common.rest.agents import Agent
from common.rest.capacity import Capacity
from common.rest.errors import ErrorResponse
from common.rest.events import Event, EventPage
from common.rest.tasks import (
    LONGEST_NAME,
    BatchRequest,
    BatchResponse,
    BatchResult,
    CancelResponse,
    DispatchRequest,
    DispatchResponse,
    OutputPage,
    TaskPage,
    TaskStatus,
)
from common.rest.why import Why
from common.work import AGENT_TYPE_PATTERN, AnyWorkType
from orchestrator.fan_outs import api as fan_outs_api
from orchestrator.http.context import trace_of
from orchestrator.http.errors import ERROR_CONTENT, problem_of, validation_problem
from orchestrator.http.pagination import decode_cursor, encode_cursor
from orchestrator.http.routes import Router
from orchestrator.http.strict import Digits
from orchestrator.identities.access import READ, MayDispatch
from orchestrator.identities.model import Caller
from orchestrator.registry.api import Pools, shown
from orchestrator.service import OrchestratorService, WorkOptions
from orchestrator.tasks.answers import dispatched, status_of, summary_of
from orchestrator.tasks.model import Identity, NewTask, TaskFilter
from orchestrator.why.answers import capacity_answer

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


router = Router(prefix="/api/v1", responses={500: {"content": ERROR_CONTENT}, 503: {"content": ERROR_CONTENT}})


async def get_orchestrator_service(request: Request) -> OrchestratorService:
    """Return the service of the running app."""
    service: OrchestratorService = request.app.state.orchestrator_service
    return service


Service = Annotated[OrchestratorService, Depends(get_orchestrator_service)]


def dispatch_options(work: DispatchRequest, trace_id: UUID, caller: Caller) -> WorkOptions:
    """Return what a request says of work besides its type, parameters and priority."""
    return {
        "hints": work.hints.model_dump(mode="json", exclude_none=True),
        "request_id": work.request_id,
        "trace_id": work.trace_id or trace_id,
        "idempotent": work.idempotent,
        "max_attempts": work.max_attempts,
        "ordering_key": work.ordering_key,
        "concurrency_key": work.concurrency_key,
        "concurrency_limit": work.concurrency_limit,
        "expires_after": (
            None if work.expires_after_seconds is None else timedelta(seconds=work.expires_after_seconds)
        ),
        "approval_id": work.approval_id,
        "name": work.name,
        "labels": work.labels,
        "requested_by": caller,
    }


@router.post(
    "/dispatch",
    tags=["tasks"],
    summary="Dispatch work",
    response_model_exclude_none=True,
    responses={**UNKNOWN, **CONFLICT, **INVALID},
)
async def dispatch(work: DispatchRequest, request: Request, service: Service, caller: MayDispatch) -> DispatchResponse:
    """Store work and have an agent do it, or each of several agents with `on`.

    When this answers with 200 the work is in the ledger and will not be lost. When the answer is lost, send the same
    again: the same `task_id` or `request_id` with the same content is the same task and gets the same answer.
    """
    options = dispatch_options(work, trace_of(request.scope), caller)
    if work.on is not None:
        fan_outs = await fan_outs_api.get_fan_outs(request)
        return await fan_outs_api.dispatch(work, work.on, fan_outs, **options)
    return dispatched(
        await service.dispatch_work(work.task_id, work.work_type, work.parameters, work.priority, **options)
    )


@router.post("/dispatch/batch", tags=["tasks"], summary="Dispatch up to 1,000 at once", responses={**INVALID})
async def dispatch_batch(batch: BatchRequest, request: Request, service: Service, caller: MayDispatch) -> BatchResponse:
    """Dispatch many; each item is answered on its own, so one that is refused does not keep the others back.

    Items without a `trace_id` share that of the request, so that one subscription follows them all.
    """
    trace_id = trace_of(request.scope)
    checked = [_checked(item, service, trace_id, caller) for item in batch.tasks]
    answers = iter(await service.submit_all([one for one in checked if not isinstance(one, ErrorResponse)]))
    results = [
        _batch_result(index, one if isinstance(one, ErrorResponse) else next(answers), trace_id)
        for index, one in enumerate(checked)
    ]
    return BatchResponse(results=results)


def _checked(
    item: dict[str, object], service: OrchestratorService, trace_id: UUID, caller: Caller
) -> NewTask | ErrorResponse:
    """Return the task of one item of a batch, or why it is refused."""
    try:
        work = DispatchRequest.model_validate(item)
        if work.on is not None:
            raise InvalidField("on", "is not allowed in a batch: dispatch it alone")
        return service.task_of(
            work.task_id, work.work_type, work.parameters, work.priority, **dispatch_options(work, trace_id, caller)
        )
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        return validation_problem(found, trace_id, item, DispatchRequest)
    except ChiffonError as error:
        return problem_of(error, trace_id)


def _batch_result(index: int, answer: Identity | BaseException | ErrorResponse, trace_id: UUID) -> BatchResult:
    if isinstance(answer, Identity):
        return BatchResult(index=index, status_code=200, task=dispatched(answer))
    if isinstance(answer, ChiffonError):
        answer = problem_of(answer, trace_id)
    if isinstance(answer, BaseException):
        raise answer  # a failure of ours: the request as a whole is answered with it
    return BatchResult(index=index, status_code=answer.status, error=answer)


@router.get(
    "/status/{task_id}",
    dependencies=[READ],
    tags=["tasks"],
    summary="Where a task stands",
    responses={**NOT_FOUND, **INVALID},
)
async def get_task(task_id: UUID, service: Service) -> TaskStatus:
    """Return a task with the end of its output."""
    task, output = await service.get_task_status(task_id)
    return status_of(task, output)


@router.get("/tasks", dependencies=[READ], tags=["tasks"], summary="List tasks, newest first", responses={**INVALID})
async def list_tasks(
    service: Service,
    status: Annotated[
        list[Status] | None, Query(description="Only tasks that stand there; repeat it for more.")
    ] = None,
    work_type: AnyWorkType | None = None,
    agent_type: Annotated[str | None, Query(pattern=AGENT_TYPE_PATTERN)] = None,
    agent_id: Annotated[UUID | None, Query(description="Run by this agent, now or last.")] = None,
    trace_id: UUID | None = None,
    name: Annotated[str | None, Query(max_length=LONGEST_NAME, description="Called exactly so.")] = None,
    label: Annotated[list[str] | None, Query(description="With this label, as NAME=VALUE; repeat it for more.")] = None,
    requested_by: Annotated[
        str | None, Query(max_length=LONGEST_IDENTITY, description="Dispatched by this identity.")
    ] = None,
    created_after: Annotated[Moment | None, Query(description="With its zone, as in 2026-11-22T10:00:00Z.")] = None,
    limit: Annotated[Digits, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the last page.")] = None,
) -> TaskPage:
    """Return the tasks that match everything given, a page at a time.

    A page of large tasks ends before the limit: go on with its `next_cursor`.
    """
    before = None if cursor is None else decode_cursor(cursor)
    wanted = TaskFilter(
        status,
        work_type,
        agent_type,
        agent_id,
        trace_id,
        created_after,
        name=name,
        labels=_labels(label or ()),
        requested_by=requested_by,
        before=before,
    )
    page = await service.list_tasks(wanted, limit=limit)
    last = page.rows[-1] if page.has_more else None
    return TaskPage(
        items=[summary_of(task) for task in page.rows],
        next_cursor=None if last is None else encode_cursor(last.created_at, last.task_id),
    )


def _labels(given: Sequence[str]) -> dict[str, str]:
    """Return the labels that a query asks for; raises `InvalidField`."""
    labels: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign:
            raise InvalidField("query.label", f"must be NAME=VALUE, not {text!r}")
        labels[name] = value
    try:
        return check_task_labels(labels)
    except ValueError as problem:
        raise InvalidField("query.label", str(problem)) from None


@router.get(
    "/tasks/{task_id}/output",
    dependencies=[READ],
    tags=["tasks"],
    summary="What a task wrote",
    responses={**NOT_FOUND, **INVALID},
)
async def read_output(
    task_id: UUID,
    service: Service,
    stream: Stream = Stream.STDOUT,
    offset: Annotated[Digits, Query(ge=0, le=MAX_OFFSET, description="Bytes of UTF-8 before the part.")] = 0,
    limit: Annotated[Digits, Query(ge=1, le=4 * PAGE_BYTES, description="At most so many bytes.")] = PAGE_BYTES,
    attempt: Annotated[Digits | None, Query(ge=1, le=32_767, description="Which attempt; the last by default.")] = None,
) -> OutputPage:
    """Return a part of one stream of a task's output, while it runs or afterwards."""
    found = await service.read_output(task_id, attempt=attempt, stream=stream, offset=offset, limit=limit)
    return OutputPage.model_validate(found)


@router.get(
    "/tasks/{task_id}/events",
    dependencies=[READ],
    tags=["tasks"],
    summary="What happened to a task",
    responses={**NOT_FOUND, **INVALID},
)
async def list_events(
    task_id: UUID,
    service: Service,
    after: Annotated[Digits, Query(ge=0, le=MAX_OFFSET, description="Only events numbered above this.")] = 0,
    limit: Annotated[Digits, Query(ge=1, le=1000)] = 100,
) -> EventPage:
    """Return the events of a task, oldest first; a page of large events ends before the limit, the last is empty."""
    found = await service.list_events(task_id, after=after, limit=limit)
    return EventPage(
        items=[Event.model_validate(event) for event in found], next_after=found[-1].seq if found else after
    )


@router.get(
    "/tasks/{task_id}/why",
    dependencies=[READ],
    tags=["tasks"],
    summary="Why a task waits",
    response_model_exclude_none=True,
    responses={**NOT_FOUND, **INVALID},
)
async def explain_wait(task_id: UUID, service: Service) -> Why:
    """Return everything that is in the way of a task now: others of its keys, its retry, the broker, the agents.

    A task that runs or has ended does not wait; its only entry says so.
    """
    return Why.model_validate(await service.explain_wait(task_id))


@router.get("/agents", dependencies=[READ], tags=["agents"], summary="List agents", responses={**INVALID})
async def list_agents(
    service: Service,
    pools: Pools,
    agent_type: Annotated[str | None, Query(pattern=AGENT_TYPE_PATTERN)] = None,
    status: Annotated[AgentStatus | None, Query(description="online, busy, draining or offline")] = None,
    gone: Annotated[bool, Query(description="Also agents that have been silent for long, or were shut out.")] = False,
) -> list[Agent]:
    """Return the agents, and how each is; those that are gone only if they are asked for."""
    found = await service.list_agents(agent_type=agent_type, status=status, with_gone=gone)
    return [shown(agent, pools) for agent in found]


@router.get(
    "/agents/capacity",
    dependencies=[READ],
    tags=["agents"],
    summary="Which agents could take work now",
    responses={**INVALID},
)
async def get_capacity(
    service: Service,
    require: Annotated[
        list[str] | None,
        Query(description="A label that the agent must have, as NAME=VALUE; of a number at least as much. Repeat it."),
    ] = None,
    work_type: AnyWorkType | None = None,
    agent_type: Annotated[str | None, Query(pattern=AGENT_TYPE_PATTERN)] = None,
) -> Capacity:
    """Return of each agent whether it could begin work with these requirements now, by the labels that place work."""
    requires = _requirements(require or ())
    found = await service.agent_capacity(requires, agent_type=agent_type, work_type=work_type)
    return capacity_answer(found)


def _requirements(given: Sequence[str]) -> dict[str, Any]:
    """Return the labels that a query requires, whose values may be JSON; raises `InvalidField`."""
    named: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign:
            raise InvalidField("query.require", f"must be NAME=VALUE, not {text!r}")
        try:
            named[name] = read_json(value.encode())
        except NotJson:
            named[name] = value
    try:
        return check_labels(named)
    except ValueError as problem:
        raise InvalidField("query.require", str(problem)) from None


@router.post("/cancel/{task_id}", tags=["tasks"], summary="Cancel a task", responses={**ENDED, **NOT_FOUND, **INVALID})
async def cancel_task(task_id: UUID, service: Service, caller: MayDispatch) -> CancelResponse:
    """Cancel a task that has not ended; one that is cancelled already stays so.

    It is cancelled when this answers: nobody can claim it any more, and no late result changes it. An agent that runs
    it is told to stop it, which takes a moment.
    """
    await service.cancel_task(task_id, by=caller.name)
    return CancelResponse(task_id=task_id)
