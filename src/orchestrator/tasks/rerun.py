"""What a rerun is: a new task with the same content that names the old one. Pure."""

from uuid import UUID

from common.policy.model import Work
from orchestrator.identities.model import Caller
from orchestrator.policy.service import RuleWork
from orchestrator.tasks.dispatch import FAN_OUT
from orchestrator.tasks.model import NewTask, Task


def make_rerun(
    task: Task, *, task_id: UUID, request_id: UUID, trace_id: UUID | None = None, rule: RuleWork, by: Caller
) -> NewTask:
    """Return the task to dispatch; it belongs to the same trace unless another is given.

    Whether it may run, the policy says anew; raises what `rule` raises.

    It may wait as long as the old one might, from now on; the limit of its concurrency key is the one that holds now.
    """
    return NewTask(
        task_id=task_id,
        request_id=request_id,
        trace_id=trace_id or task.trace_id,
        work_type=task.work_type,
        agent_type=task.agent_type,
        parameters=task.parameters,
        hints=task.hints,
        priority=task.priority,
        idempotent=task.idempotent,
        max_attempts=task.max_attempts,
        ruling=rule(Work(task.work_type, task.agent_type, task.parameters, task.hints)),
        ordering_key=task.ordering_key,
        # A fan-out is its tasks of the first time.
        concurrency_key=None if (task.concurrency_key or "").startswith(FAN_OUT) else task.concurrency_key,
        expires_after=None if task.expires_at is None else task.expires_at - task.created_at,
        rerun_of=task.task_id,
        precedence=task.precedence,
        name=task.name,
        labels=task.labels,
        requested_by=by,
    )
