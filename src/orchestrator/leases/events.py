"""The events that leases write."""

from datetime import datetime
from typing import Any
from uuid import UUID

from common.lifecycle import Status
from common.messages import WorkResult
from common.rest.dead_letters import DeadLetterKind
from orchestrator.dead_letters.model import NewLetter
from orchestrator.events.model import Kind, NewEvent
from orchestrator.leases.given import GivenLease
from orchestrator.leases.model import End
from orchestrator.tasks.model import NewTask, Task

KIND_OF_END = {
    Status.COMPLETED: Kind.TASK_COMPLETED,
    Status.FAILED: Kind.TASK_FAILED,
    Status.CANCELLED: Kind.TASK_CANCELLED,
}


def claimed(task: Task | NewTask, agent_id: UUID, attempt: int) -> NewEvent:
    return NewEvent.by_agent(Kind.TASK_CLAIMED, task, agent_id, attempt, _ruled(task))


def ended(task: Task | GivenLease, end: End, status: Status) -> NewEvent:
    return NewEvent.by_agent(KIND_OF_END[status], task, task.agent_id, task.attempt, {**_summary(end), **_ruled(task)})


def stopped(task: Task, result: WorkResult, end: End) -> NewEvent:
    return NewEvent.by_agent(Kind.TASK_STOPPED, task, result.agent_id, result.attempt, _summary(end))


def requeued(task: Task, end: End, at: datetime) -> NewEvent:
    about = {"reason": end.error_message or end.outcome, "available_at": at.isoformat(), **_summary(end)}
    return NewEvent.by_agent(Kind.TASK_REQUEUED, task, task.agent_id, task.attempt, about)


def refused(task: Task, result: WorkResult, reason: str) -> NewEvent:
    about = {"reason": reason, "status": result.status}
    return NewEvent.by_agent(Kind.TASK_RESULT_REFUSED, task, result.agent_id, result.attempt, about)


def dead_letter(task: Task, end: End) -> NewLetter:
    """Return what is noted of a task that failed because no agent could do it."""
    reason = f"attempt {task.attempt} of {task.max_attempts}: {end.error_message or end.outcome}"
    return NewLetter(
        DeadLetterKind.TASK,
        queue=f"work.{task.agent_type}",
        type=task.work_type,
        reason=reason,
        priority=task.priority,
        task_id=task.task_id,
    )


def _ruled(task: Task | NewTask | GivenLease) -> dict[str, Any]:
    """Return what the audit compares before and after: that exactly what was ruled on, and approved, ran."""
    return {
        "effect": task.effect,
        "digest": None if task.work_digest is None else task.work_digest.hex(),
        "approval_id": None if task.approval_id is None else str(task.approval_id),
    }


def _summary(end: End) -> dict[str, Any]:
    summary = {
        "exit_code": end.exit_code,
        "duration_ms": end.duration_ms,
        "error_code": end.error_code,
        "error_message": end.error_message,
        "output_bytes": end.output_bytes,
    }
    return summary | ({"output_dropped": end.output_dropped} if end.output_dropped else {})
