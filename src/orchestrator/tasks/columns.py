"""The values of new tasks, as statements that store them take them: a list for each column."""

from collections.abc import Sequence
from typing import Any

from common.confinement import UNCONFINED, Confinement
from orchestrator.tasks.model import NewTask


def columns(tasks: Sequence[NewTask]) -> tuple[list[Any], ...]:
    """Return task_id, request_id, trace_id, work_type, agent_type, parameters, hints, content_digest, priority,
    idempotent, max_attempts, expires_after, rerun_of, precedence, effect, policy_rule, policy_version, work_digest and
    confinement.
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
    )


def _confinement(confinement: Confinement) -> dict[str, Any]:
    return {} if confinement is UNCONFINED else confinement.model_dump(exclude_defaults=True)
