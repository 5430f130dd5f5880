"""The REST endpoints of fan-outs."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated, Unpack
from uuid import UUID

from fastapi import Depends, Request

from common.canonical import canonical_json
from common.rest.fan_outs import FanOut, FanOutTask, On, SkippedAgent
from common.rest.tasks import DispatchRequest, DispatchResponse
from orchestrator.database.pages import MOST_PAGE_BYTES
from orchestrator.fan_outs import model
from orchestrator.fan_outs.model import Pace, Selector
from orchestrator.fan_outs.rules import status_of
from orchestrator.fan_outs.service import FanOutService
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.http.routes import Router
from orchestrator.identities.access import READ
from orchestrator.placement.rules import AGENT_ID
from orchestrator.service import WorkOptions
from orchestrator.tasks.model import Task

router = Router(
    prefix="/api/v1/fan-outs",
    tags=["tasks"],
    responses={
        422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
        500: {"content": ERROR_CONTENT},
    },
)


async def get_fan_outs(request: Request) -> FanOutService:
    """Return the fan-out service of the running app."""
    service: FanOutService = request.app.state.fan_outs
    return service


FanOuts = Annotated[FanOutService, Depends(get_fan_outs)]


@router.get(
    "/{fan_out_id}",
    dependencies=[READ],
    summary="How a fan-out stands",
    responses={
        404: {"content": ERROR_CONTENT, "description": "There is no such fan-out (2001)."},
        422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
    },
)
async def get_fan_out(fan_out_id: UUID, fan_outs: FanOuts) -> FanOut:
    """Return the tasks of a fan-out, one for each agent, and how they stand together."""
    return _shown(await fan_outs.get(fan_out_id))


async def dispatch(
    work: DispatchRequest, on: On, fan_outs: FanOutService, **options: Unpack[WorkOptions]
) -> DispatchResponse:
    """Dispatch work to each of several agents."""
    sent = await fan_outs.dispatch(
        work.task_id,
        work.work_type,
        work.parameters,
        work.priority,
        selector=Selector(on.agents, on.labels or {}),
        pace=Pace(work.batch, work.stop_after_failures),
        **options,
    )
    return DispatchResponse(
        trace_id=sent.trace_id,
        request_id=sent.request_id,
        task_id=sent.fan_out_id,
        status=status_of(part.status for part in sent.parts),
        tasks=[
            FanOutTask(
                agent_id=part.target.agent_id,
                agent_name=part.target.name,
                task_id=part.task_id,
                status=part.status,
                approval_id=part.approval_id,
            )
            for part in sent.parts
        ],
        skipped=[SkippedAgent(name=one.name, reason=one.reason) for one in sent.skipped],
    )


def _shown(found: model.FanOut) -> FanOut:
    # What is asked of an agent stands in the hints of its task, also before the agent has begun.
    tasks = [replace(task, agent_id=UUID(str(task.hints[AGENT_ID]))) for task in found.tasks]
    ends = [task.finished_at for task in tasks if task.finished_at is not None]
    return FanOut(
        fan_out_id=found.fan_out_id,
        trace_id=tasks[0].trace_id,
        work_type=tasks[0].work_type,
        name=tasks[0].name,
        status=status_of(task.status for task in tasks),
        counts=Counter(task.status.value for task in tasks),
        tasks=list(parts_of(tasks)),
        created_at=min(task.created_at for task in tasks),
        finished_at=max(ends) if len(ends) == len(tasks) else None,
    )


def parts_of(tasks: Iterable[Task], *, most_bytes: int = MOST_PAGE_BYTES) -> Iterator[FanOutTask]:
    """Yield the task of each agent, with its result as long as all results together are not too large."""
    size = 0
    for task in tasks:
        part = FanOutTask.model_validate(task)
        size += 0 if task.result is None else len(canonical_json(task.result))
        left_out = task.result is not None and size > most_bytes
        yield part.model_copy(update={"result": None, "result_left_out": True}) if left_out else part
