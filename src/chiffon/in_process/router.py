"""The read-only endpoints for operators, in the same shape as those of the orchestrator."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from chiffon.in_process.model import Execution
from chiffon.in_process.service import OrchestratorService
from common.lifecycle import Status
from common.rest import ops as rest

POOL = "in-process"
PRIORITY = 3


def ops_router(service: OrchestratorService) -> APIRouter:
    """Return `GET /ops/queue` and `GET /ops/executions` over a service, for an app to include."""
    router = APIRouter(prefix="/ops", tags=["ops"])

    @router.get("/queue", summary="What waits and runs")
    async def get_queue() -> rest.QueueSnapshot:
        """Return how much waits and runs."""
        store, at = service.queue.store, datetime.now(UTC)
        waiting, running = await store.with_status(Status.PENDING), await store.with_status(Status.RUNNING)
        return rest.QueueSnapshot(
            at=at,
            pools=[_pool(waiting, at)] if waiting else [],
            held_by_keys=0,
            leases=[rest.LeaseHolder(agent_id=store.id, name=POOL, running=len(running), next_lease_ends_at=None)]
            if running
            else [],
            dead_letters={},
        )

    @router.get("/executions", summary="What came of the last")
    async def list_executions(limit: Annotated[int, Query(ge=1, le=200)] = 50) -> rest.Executions:
        """Return the executions that ended last, the newest end first."""
        return rest.Executions(items=[_shown(one) for one in await service.queue.store.last_ended(limit)])

    return router


def _pool(waiting: Sequence[Execution], at: datetime) -> rest.WaitingPool:
    return rest.WaitingPool(
        pool=POOL,
        depth=len(waiting),
        by_priority={PRIORITY: len(waiting)},
        retries=0,
        oldest_seconds=(at - waiting[0].created_at).total_seconds(),
    )


def _shown(execution: Execution) -> rest.Execution:
    ran = None
    if execution.started_at is not None and execution.finished_at is not None:
        ran = int((execution.finished_at - execution.started_at).total_seconds() * 1000)
    return rest.Execution(
        execution_id=execution.execution_id,
        command=execution.command,
        status=execution.status,
        result=execution.result,
        error_message=execution.error_message,
        error_code=execution.error_code,
        attempts=execution.attempt,
        duration_ms=ran,
        created_at=execution.created_at,
        finished_at=execution.finished_at,
    )
