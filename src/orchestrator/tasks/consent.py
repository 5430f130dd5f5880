"""What a new task has to do with approvals: the one that it brings along, or the question that it has to wait for."""

from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from common.canonical import canonical_json
from common.work import content_of
from orchestrator.approvals.model import Approval, NewApproval
from orchestrator.approvals.rules import Use
from orchestrator.identities.model import ANYBODY
from orchestrator.tasks.model import NewTask


def in_words_of(task: NewTask, approval: Approval | None) -> NewTask:
    """Return a task in the words of the approval that it brings along, where its parameters say the same.

    What runs is then literally what people saw, also when the dispatch spells out a default, or leaves one out. Words
    for which the policy has another rule are not what was approved: people saw the rule, too.
    """
    if approval is None or approval.rule != task.ruling.rule or not _says_the_same(task, approval):
        return task
    return replace(task, parameters=approval.parameters)


def _says_the_same(task: NewTask, approval: Approval) -> bool:
    if task.parameters == approval.parameters:
        return True
    asked, approved = (content_of(task.work_type, given.parameters) for given in (task, approval))
    return canonical_json(asked) == canonical_json(approved)


def uses_of(tasks: Iterable[NewTask]) -> dict[int, Use]:
    """Return what the tasks bring along, by the identity of each object: one id can stand for two contents."""
    return {id(task): _use_of(task, task.approval_id) for task in tasks if task.approval_id is not None}


def _use_of(task: NewTask, approval_id: UUID) -> Use:
    content = {
        "work_type": task.work_type,
        "target": task.agent_type,
        "parameters": dict(task.parameters),
        "hints": dict(task.hints),
        "policy_version": task.policy_version,
    }
    by = (task.requested_by or ANYBODY).principal_id
    return Use(approval_id, task.task_id, task.trace_id, task.work_digest, content, task.terms, by)


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
        task.terms,
        task.ruling.effect,
        task.ruling.policy_version,
        task.ruling.rule,
        demand,
        task.requested_by or ANYBODY,
        task_id=task.task_id,
        trace_id=task.trace_id,
        at_most=task.expires_after,
    )
