"""What a new task has to do with approvals: the one that it brings along, or the question that it has to wait for."""

from collections.abc import Iterable

from orchestrator.approvals.asking import Use
from orchestrator.approvals.model import NewApproval
from orchestrator.identities.model import ANYBODY
from orchestrator.tasks.model import NewTask


def uses_of(tasks: Iterable[NewTask]) -> dict[int, Use]:
    """Return what the tasks bring along, by the identity of each object: one id can stand for two contents."""
    return {
        id(task): Use(task.approval_id, task.task_id, task.trace_id, task.work_digest)
        for task in tasks
        if task.approval_id is not None
    }


def question_of(task: NewTask) -> NewApproval:
    """Return what people are asked before a task may run that awaits their approval."""
    approval_id, demand = task.effective_approval_id, task.ruling.approval
    assert approval_id is not None
    assert demand is not None
    return NewApproval(
        approval_id,
        task.work_digest,
        task.work_type,
        task.agent_type,
        task.parameters,
        task.hints,
        task.ruling.effect,
        task.ruling.policy_version,
        task.ruling.rule,
        demand,
        task.requested_by or ANYBODY,
        task_id=task.task_id,
        trace_id=task.trace_id,
        at_most=task.expires_after,
    )
