"""Run work in this process, without any server: a queue, a worker, approvals, and the same life cycle.

async with OrchestratorService() as service:
    service.register("resize", resize, effect="read")          # async def resize(payload): ...
    await service.start_worker()
    execution = await service.submit_execution("resize", {"width": 80}, execution_id="photo-7")
    outcome = await service.outcome(execution.execution_id)
"""

from chiffon.in_process.approvals import ApprovalForbidden, ApprovalNotPossible
from chiffon.in_process.gate import Refusal
from chiffon.in_process.model import (
    BadExecution,
    Claim,
    Execution,
    ExecutionConflict,
    ExecutionHasEnded,
    Job,
    UnknownExecution,
    WorkFailed,
)
from chiffon.in_process.queue import QueueService
from chiffon.in_process.router import ops_router
from chiffon.in_process.service import OrchestratorService
from common.lifecycle import Status
from common.policy.model import Effect

__all__ = [
    "ApprovalForbidden",
    "ApprovalNotPossible",
    "BadExecution",
    "Claim",
    "Effect",
    "Execution",
    "ExecutionConflict",
    "ExecutionHasEnded",
    "Job",
    "OrchestratorService",
    "QueueService",
    "Refusal",
    "Status",
    "UnknownExecution",
    "WorkFailed",
    "ops_router",
]
