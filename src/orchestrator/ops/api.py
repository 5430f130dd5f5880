"""The endpoints for operators: reading only."""

from typing import Annotated, Any

from fastapi import Depends, Query, Request

from common.rest.ops import Execution, Executions, LeaseHolder, QueueSnapshot, WaitingPool
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.http.routes import Router
from orchestrator.http.strict import Digits
from orchestrator.identities.access import READ
from orchestrator.ops.service import OpsService
from orchestrator.tasks.model import Task

PROBLEMS: dict[int | str, dict[str, Any]] = {
    422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
    500: {"content": ERROR_CONTENT},
    503: {"content": ERROR_CONTENT},
}

router = Router(prefix="/ops", tags=["ops"], dependencies=[READ], responses=PROBLEMS)


async def get_ops(request: Request) -> OpsService:
    """Return the service of the running app."""
    service: OpsService = request.app.state.ops
    return service


Ops = Annotated[OpsService, Depends(get_ops)]


@router.get("/queue", summary="What waits and runs")
async def get_queue(ops: Ops) -> QueueSnapshot:
    """Return the depth of every queue by priority, its age, the live leases, and the dead letters."""
    seen = await ops.snapshot()
    return QueueSnapshot(
        at=seen.at,
        pools=[WaitingPool.model_validate(pool) for pool in seen.pools],
        held_by_keys=seen.held_by_keys,
        leases=[
            LeaseHolder(
                agent_id=str(holder.agent_id),
                name=holder.name,
                running=holder.running,
                next_lease_ends_at=holder.next_lease_ends_at,
            )
            for holder in seen.leases
        ],
        dead_letters=dict(seen.dead_letters),
    )


@router.get("/executions", summary="What came of the last")
async def list_executions(ops: Ops, limit: Annotated[Digits, Query(ge=1, le=200)] = 50) -> Executions:
    """Return the work that ended last, the newest end first."""
    return Executions(items=[_shown(task) for task in await ops.last_ended(limit=limit)])


def _shown(task: Task) -> Execution:
    return Execution(
        execution_id=str(task.task_id),
        command=task.work_type,
        status=task.status,
        result=task.output or None,
        error_message=task.error_message,
        error_code=task.error_code,
        attempts=task.starts,
        agent_id=None if task.agent_id is None else str(task.agent_id),
        duration_ms=task.duration_ms,
        created_at=task.created_at,
        finished_at=task.finished_at,
    )
