"""What a job is in terms of tasks: pure decisions."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID, uuid5

from common.errors import InvalidField
from common.lifecycle import Status
from common.policy.model import Work
from common.rest.jobs import JobStatus
from common.work import check_parameters
from orchestrator.identities.model import Caller
from orchestrator.jobs.model import Worker
from orchestrator.policy.service import RuleWork, check_planned
from orchestrator.tasks.model import NORMAL_PRIORITY, NewTask

# The pool of work types that no route leads to: only the queue API serves it.
HTTP_POOL = "http"
AFFINITY_KEY = "affinity_key"
# Whatever a worker calls itself becomes an id below this one (RFC 9562, version 5).
WORKERS = UUID("7c1b7c58-0a52-5b8e-9d38-3c1e5f0a9b42")

STATUS_OF: Mapping[Status, JobStatus] = {
    Status.AWAITING_APPROVAL: JobStatus.QUEUED,
    Status.PENDING: JobStatus.QUEUED,
    Status.RUNNING: JobStatus.RUNNING,
    Status.COMPLETED: JobStatus.SUCCEEDED,
    Status.FAILED: JobStatus.FAILED,
    Status.CANCELLED: JobStatus.CANCELLED,
}


def statuses_of(statuses: Collection[JobStatus] | None) -> list[Status] | None:
    """Return the statuses of tasks that the statuses of jobs stand for; None for any."""
    return None if statuses is None else [ours for ours, shown in STATUS_OF.items() if shown in statuses]


def worker_of(name: str) -> Worker:
    """Return the worker of that name: a UUID is its id as an agent, anything else is made into one."""
    try:
        return Worker(name, UUID(name))
    except ValueError:
        return Worker(name, uuid5(WORKERS, name))


def message_priority(precedence: int) -> int:
    """Return the priority, 1 to 5, that a job has on the bus; 0 is normal there, too."""
    return max(1, min(5, precedence + NORMAL_PRIORITY))


def new_job(
    task_id: UUID,
    work_type: str,
    *,
    request_id: UUID,
    trace_id: UUID,
    payload: Mapping[str, Any],
    precedence: int,
    affinity_key: str | None,
    max_attempts: int,
    routes: Mapping[str, str],
    rule: RuleWork,
    requested_by: Caller | None = None,
) -> NewTask:
    """Return the task that a job is.

    Raises `InvalidField` for a payload that its work type does not allow, and what `rule` raises.
    """
    agent_type = routes.get(work_type, HTTP_POOL)
    hints = {} if affinity_key is None else {AFFINITY_KEY: affinity_key}
    try:
        check_planned(work_type, is_repair=False)
        check_parameters(work_type, payload)
        ruling = rule(Work(work_type, agent_type, payload, hints))
    except InvalidField as error:
        raise InvalidField(_field_of_job(error.field), error.problem) from None
    return NewTask(
        task_id=task_id,
        request_id=request_id,
        trace_id=trace_id,
        work_type=work_type,
        agent_type=agent_type,
        parameters=payload,
        hints=hints,
        priority=message_priority(precedence),
        idempotent=False,
        max_attempts=max_attempts,
        ruling=ruling,
        precedence=precedence,
        requested_by=requested_by,
    )


def _field_of_job(field: str) -> str:
    """Return what a job calls a field of a task."""
    return "type" if field == "work_type" else field.replace("parameters", "payload", 1)
