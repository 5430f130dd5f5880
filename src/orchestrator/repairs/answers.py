"""Repairs as answers of the contract."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, assert_never
from uuid import uuid5

from common.artifacts import FILE_TYPE
from common.rest import repairs as rest
from common.rest.approvals import ApprovalState
from common.rest.repairs import RepairStepStatus
from common.services import Requirement
from orchestrator.artifacts.links import Links
from orchestrator.artifacts.model import Artifact
from orchestrator.repairs.gate import status_of
from orchestrator.repairs.model import Known
from orchestrator.repairs.rules import Shown

# The contract has no type of its own for the logs of the other steps, and files them here.
OTHER_LOGS = "metrics"

CeleryState = Literal["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE"]


def repair(known: Known) -> rest.Repair:
    """Return a repair without its plan and steps."""
    return rest.Repair(**_summary(known))


def detail(
    known: Known, steps: Sequence[Shown], diff: Sequence[str], artifacts: Sequence[Artifact], links: Links
) -> rest.RepairDetail:
    """Return a repair with its plan, its steps, the diff that people are asked about, and what the steps left."""
    row = known.row
    return rest.RepairDetail(
        **_summary(known),
        action_plan=rest.RepairPlan(
            plan_id=uuid5(row.run_id, "plan"),
            generated_at=row.created_at,
            generated_by="system",
            steps=[rest.RepairPlanStep.model_validate(step) for step in row.plan_steps],
        ),
        steps=[_step(step, artifacts) for step in steps],
        artifacts=[artifact(one, links) for one in artifacts],
        diff=list(diff),
        metrics_snapshot=snapshot(known, steps),
    )


def artifact(found: Artifact, links: Links) -> rest.RepairArtifact:
    """Return a file that a step left."""
    return rest.RepairArtifact(
        artifact_id=found.artifact_id,
        type=OTHER_LOGS if found.type == FILE_TYPE else found.type,
        path=found.path,
        checksum=found.sha256,
        size_bytes=found.size,
        created_at=found.created_at,
        signed_path=links.path_to(found.artifact_id, found.name) if found.is_stored else None,
        missing=found.missing,
    )


def snapshot(known: Known, steps: Sequence[Shown]) -> dict[str, Any]:
    """Return how long a repair and its steps took, and what came of asking people."""
    row = known.row
    status = _approval_status(known)
    approval: dict[str, Any] = {"required": _is_asked(known), "requirement": row.gate.value, "status": status.value}
    given = known.asked[-1] if known.asked else None
    if given is not None and given.state in (ApprovalState.APPROVED, ApprovalState.USED):
        approval |= {
            "approver": given.approver,
            "grantedAt": _written(given.decided_at),
            "expiresAt": _written(given.valid_until),
        }
    return {
        "run": {"status": row.status.value, **_took(row.started_at, row.finished_at)},
        "steps": {
            step.name.value: {"status": step.status.value, **_took(step.started_at, step.finished_at)} for step in steps
        },
        "approval": approval,
    }


def _summary(known: Known) -> dict[str, Any]:
    row = known.row
    return {
        "run_id": row.run_id,
        "status": row.status,
        "target_service": row.service,
        "instruction": row.instruction,
        "priority": row.priority,
        "queued_at": row.created_at,
        "started_at": row.started_at,
        "completed_at": row.finished_at,
        "approval_required": _is_asked(known),
        "approval_status": _approval_status(known),
        "approval_id": known.asked[-1].approval_id if known.asked else None,
    }


def _is_asked(known: Known) -> bool:
    return known.row.gate is not Requirement.NONE or bool(known.asked)


def _approval_status(known: Known) -> rest.RepairApprovalStatus:
    is_open = known.row.finished_at is None
    return status_of(known.row.gate, [asked.state for asked in known.asked], is_open=is_open)


def _step(step: Shown, artifacts: Sequence[Artifact]) -> rest.RepairStep:
    return rest.RepairStep(
        name=step.name,
        status=step.status,
        started_at=step.started_at,
        completed_at=step.finished_at,
        worker_task_id=step.task_id,
        celery_task_id=step.task_id,
        celery_state=_celery_state(step),
        message=step.message,
        artifact_refs=[one.artifact_id for one in artifacts if _is_of(one, step)],
    )


def _is_of(artifact: Artifact, step: Shown) -> bool:
    """Say whether a step left a file: hosts call its files after the step."""
    is_of_task = (artifact.task_id, artifact.attempt) == (step.task_id, step.attempt)
    return is_of_task and artifact.name.partition(".")[0] == step.name


def _celery_state(step: Shown) -> CeleryState:
    match step.status:
        case RepairStepStatus.PENDING:
            return "RETRY" if step.again else "PENDING"
        case RepairStepStatus.IN_PROGRESS:
            return "STARTED"
        case RepairStepStatus.FAILED:
            return "FAILURE"
        case RepairStepStatus.SUCCEEDED | RepairStepStatus.SKIPPED:
            return "SUCCESS"
        case status:
            assert_never(status)


def _took(began: datetime | None, ended: datetime | None) -> Mapping[str, int]:
    """Return how long something took, if it has begun and ended."""
    if began is None or ended is None:
        return {}
    return {"durationMs": max(0, round((ended - began).total_seconds() * 1000))}


def _written(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def of_page(rows: Sequence[Known]) -> rest.RepairList:
    """Return a page of repairs."""
    return rest.RepairList(runs=[repair(one) for one in rows])


def listed(found: Sequence[Artifact], links: Links) -> rest.RepairArtifacts:
    """Return what the steps of a repair left."""
    return rest.RepairArtifacts(artifacts=[artifact(one, links) for one in found])
