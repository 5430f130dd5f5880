"""The events of tasks that people cause, and of those that have waited too long."""

from common.errors import ErrorCode
from orchestrator.events.model import Kind, NewEvent
from orchestrator.tasks.model import NewTask, Task


def dispatched(task: NewTask, by: str) -> NewEvent:
    return NewEvent(
        Kind.TASK_DISPATCHED,
        actor=by if task.requested_by is None else task.requested_by.name,
        task_id=task.task_id,
        trace_id=task.trace_id,
        request_id=task.request_id,
        data={
            "work_type": task.work_type,
            "agent_type": task.agent_type,
            "priority": task.priority,
            "effect": task.ruling.effect,
            "rule": task.ruling.rule,
            "policy_version": task.ruling.policy_version,
            "digest": task.work_digest.hex(),
            # Most tasks have neither, and their events stay as short as they were.
            **({"name": task.name} if task.name else {}),
            **({"labels": dict(task.labels)} if task.labels else {}),
        },
    )


def cancelled(task: Task, by: str, *, code: ErrorCode | None = None, reason: str | None = None) -> NewEvent:
    return NewEvent(
        Kind.TASK_CANCELLED,
        actor=by,
        task_id=task.task_id,
        trace_id=task.trace_id,
        request_id=task.request_id,
        agent_id=task.agent_id,
        attempt=task.attempt or None,
        data={"was": task.status, "exit_code": None, "duration_ms": None, "error_code": code, "error_message": reason},
    )
