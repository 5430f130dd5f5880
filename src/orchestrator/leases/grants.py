"""What an agent is given with a task, and what is said of a task that never reached its agent."""

from datetime import timedelta
from uuid import UUID

from common.errors import ErrorCode
from common.messages import GrantedTask, ResultStatus, WorkRequest, WorkResult
from orchestrator.tasks.model import NewTask, Task


def granted(
    task: Task | NewTask, claim_id: UUID, *, attempt: int, lease: timedelta, max_output_bytes: int
) -> GrantedTask:
    """Return the grant of one attempt, which is what gets signed.

    The digest is that of what was ruled on, and perhaps approved, when the work was handed in: parameters that were
    edited in the ledger since then do not fit it, and no agent runs them.
    """
    return GrantedTask(
        claim_id=claim_id,
        work=WorkRequest(
            task_id=task.task_id, work_type=task.work_type, parameters=dict(task.parameters), hints=dict(task.hints)
        ),
        trace_id=task.trace_id,
        request_id=task.request_id,
        attempt=attempt,
        lease_seconds=lease.total_seconds(),
        max_output_bytes=max_output_bytes,
        target=task.agent_type,
        policy_version=task.policy_version,
        effect=task.effect,
        approval_id=task.approval_id,
        confinement=task.confinement,
    ).ruled_as(task.work_digest)


def not_delivered(agent_id: UUID, task_id: UUID, *, attempt: int) -> WorkResult:
    """Return what an agent would say that hands a task back untouched: the task never reached it."""
    return WorkResult(
        task_id=task_id,
        status=ResultStatus.FAILED,
        error_message="The task never reached the agent.",
        error_code=ErrorCode.AGENT_UNAVAILABLE,
        duration_ms=0,
        agent_id=agent_id,
        attempt=attempt,
        retryable=True,
        started=False,
    )
