"""What an agent is given with a task."""

from datetime import timedelta
from uuid import UUID

from common.messages import GrantedTask, WorkRequest
from orchestrator.tasks.model import NewTask, Task


def granted(
    task: Task | NewTask, claim_id: UUID, *, attempt: int, fence: int, lease: timedelta, max_output_bytes: int
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
        fence=fence,
        lease_seconds=lease.total_seconds(),
        max_output_bytes=max_output_bytes,
        target=task.agent_type,
        policy_version=task.policy_version,
        effect=task.effect,
        approval_id=task.approval_id,
        confinement=task.confinement,
    ).ruled_as(task.work_digest)
