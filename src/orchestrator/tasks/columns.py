"""The columns of `task`: what a statement reads of a task, and the values of new tasks, a list for each column."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from common.confinement import UNCONFINED, Confinement
from orchestrator.tasks.model import NewTask, Task

# What a statement that knows it adds to the columns.
DERIVED = frozenset({"read_at", "agent_name"})
# Every column that `Task.from_row` takes.
COLUMNS = ", ".join(f"task.{field.name}" for field in fields(Task) if field.name not in DERIVED)


def columns(tasks: Sequence[NewTask]) -> tuple[list[Any], ...]:
    """Return task_id, request_id, trace_id, work_type, agent_type, parameters, hints, content_digest, priority,
    idempotent, max_attempts, expires_after, rerun_of, precedence, effect, policy_rule, policy_version, work_digest,
    confinement, name, labels and requested_by.
    """
    return (
        [task.task_id for task in tasks],
        [task.request_id for task in tasks],
        [task.trace_id for task in tasks],
        [task.work_type for task in tasks],
        [task.agent_type for task in tasks],
        [dict(task.parameters) for task in tasks],
        [dict(task.hints) for task in tasks],
        [task.digest for task in tasks],
        [task.priority for task in tasks],
        [task.idempotent for task in tasks],
        [task.max_attempts for task in tasks],
        [task.expires_after for task in tasks],
        [task.rerun_of for task in tasks],
        [task.effective_precedence for task in tasks],
        [task.ruling.effect for task in tasks],
        [task.ruling.rule for task in tasks],
        [task.ruling.policy_version for task in tasks],
        [task.work_digest for task in tasks],
        [_confinement(task.ruling.confinement) for task in tasks],
        [task.name for task in tasks],
        [dict(task.labels) for task in tasks],
        [None if task.requested_by is None else task.requested_by.name for task in tasks],
    )


def _confinement(confinement: Confinement) -> dict[str, Any]:
    return {} if confinement is UNCONFINED else confinement.model_dump(exclude_defaults=True)
