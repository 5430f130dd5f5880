"""Run work in this process, without any server: a queue, a worker, and the same life cycle.

async with OrchestratorService() as service:
    service.register("resize", resize)          # async def resize(payload): ...
    await service.start_worker()
    execution = await service.submit_execution("resize", {"width": 80}, execution_id="photo-7")
    outcome = await service.outcome(execution.execution_id)
"""

from chiffon.in_process.gate import Refusal
from chiffon.in_process.model import Claim, Execution, ExecutionConflict, UnknownExecution, WorkFailed
from chiffon.in_process.queue import QueueService
from chiffon.in_process.router import ops_router
from chiffon.in_process.service import OrchestratorService

__all__ = [
    "Claim",
    "Execution",
    "ExecutionConflict",
    "OrchestratorService",
    "QueueService",
    "Refusal",
    "UnknownExecution",
    "WorkFailed",
    "ops_router",
]
