"""The first lease of a task, given as it is stored: what is told of it, and what its agent is granted."""

from datetime import timedelta

from common.lifecycle import Status
from common.messages import GrantedTask, WorkRequest
from orchestrator.dispatch.standing import StandingClaim
from orchestrator.events.model import Kind, NewEvent
from orchestrator.keys.model import has_keys
from orchestrator.tasks.model import NewTask

ATTEMPT = FENCE = 1


def is_plain(task: NewTask) -> bool:
    """Say whether a task waits for nothing and may go to everybody of its pool."""
    return task.status is Status.PENDING and task.effective_approval_id is None and not task.aim and not has_keys(task)


def claimed(task: NewTask, claim: StandingClaim) -> NewEvent:
    """Return what is told of a task that an agent has claimed in advance."""
    return NewEvent(
        Kind.TASK_CLAIMED,
        actor=str(claim.agent_id),
        task_id=task.task_id,
        trace_id=task.trace_id,
        request_id=task.request_id,
        agent_id=claim.agent_id,
        attempt=ATTEMPT,
        data={"effect": task.ruling.effect, "digest": task.work_digest.hex(), "approval_id": None},
    )


def granted(task: NewTask, claim: StandingClaim, *, lease: timedelta, max_output_bytes: int) -> GrantedTask:
    """Return the grant of the first attempt; see `leases.grants` for its digest."""
    return GrantedTask(
        claim_id=claim.claim_id,
        work=WorkRequest(
            task_id=task.task_id, work_type=task.work_type, parameters=dict(task.parameters), hints=dict(task.hints)
        ),
        trace_id=task.trace_id,
        request_id=task.request_id,
        attempt=ATTEMPT,
        fence=FENCE,
        lease_seconds=lease.total_seconds(),
        max_output_bytes=max_output_bytes,
        target=task.agent_type,
        policy_version=task.ruling.policy_version,
        effect=task.ruling.effect,
        confinement=task.ruling.confinement,
    ).ruled_as(task.work_digest)
