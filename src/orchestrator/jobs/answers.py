"""Jobs, grants and orders as the queue API answers them."""

from collections.abc import Sequence

from common.messages import GrantedTask
from common.orders import ArtifactsStored, Drain, FilePiece, Leave, Pause
from common.rest import jobs as rest
from common.rest.workers import CancelledJob, UnsettledJob, WorkerOrder, WorkerOrders
from orchestrator.jobs.model import Job, Taken, Told
from orchestrator.jobs.rules import AFFINITY_KEY, STATUS_OF


def job(found: Job) -> rest.Job:
    """Return a job and where it stands."""
    task = found.task
    return rest.Job(
        id=task.task_id,
        type=task.work_type,
        status=STATUS_OF[task.status],
        priority=task.precedence,
        payload=dict(task.parameters),
        affinity_key=task.hints.get(AFFINITY_KEY),
        claimed_by=found.claimed_by,
        lease_expires_at=task.lease_expires_at,
        attempt=task.attempt,
        max_attempts=task.max_attempts,
        max_output_bytes=found.max_output_bytes,
        trace_id=task.trace_id,
        request_id=task.request_id,
        result_summary=task.output or None,
        error_message=task.error_message,
        artifacts_path=task.artifacts_path,
        created_at=task.created_at,
        updated_at=task.updated_at,
        started_at=task.started_at,
        finished_at=task.finished_at,
    )


def claimed(taken: Taken | None) -> rest.ClaimAnswer:
    """Return the answer to a claim: a job with its grant and its signature, or none."""
    if taken is None:
        return rest.ClaimAnswer(job=None)
    return rest.ClaimAnswer(job=job(taken.job), grant=_grant(taken.grant), signature=taken.signature)


def _grant(grant: GrantedTask) -> rest.JobGrant:
    return rest.JobGrant(
        hints=grant.work.hints,
        target=grant.target,
        policy_version=grant.policy_version,
        effect=grant.effect,
        approval_id=grant.approval_id,
        confinement=grant.confinement,
    )


def artifact(name: str, told: ArtifactsStored | None) -> rest.ArtifactAnswer:
    """Return what has become of a file of which a piece came."""
    if told is None:
        return rest.ArtifactAnswer(stored=False)
    return rest.ArtifactAnswer(stored=name not in told.refused and name in told.names, refused=told.refused.get(name))


def file(piece: FilePiece | None) -> rest.FileAnswer:
    """Return a piece of a file, or what is wrong with the file; None: it is on its way."""
    if piece is None:
        return rest.FileAnswer(pending=True)
    return rest.FileAnswer(
        offset=piece.offset, size=piece.size, sha256=piece.sha256, data=piece.data, problem=piece.problem
    )


def orders(told: Told, *, keys: Sequence[str]) -> WorkerOrders:
    """Return all that a worker is told which has reported itself."""
    return WorkerOrders(
        orders=[] if told.order is None else [order(told.order)],
        cancelled=[CancelledJob(job_id=task_id, attempt=number) for task_id, number in told.cancelled],
        settle=[UnsettledJob(job_id=task_id, attempt=number) for task_id, number in told.unsettled],
        keys=list(keys),
    )


def order(given: Pause | Drain | Leave) -> WorkerOrder:
    """Return an order to a worker."""
    match given:
        case Pause():
            return WorkerOrder(action=given.action, until=given.until, note=given.note)
        case Leave():
            return WorkerOrder(action=given.action, boot_id=given.boot_id, note=given.reason)
        case Drain():
            return WorkerOrder(action=given.action, started_at=given.started_at, note=given.note)
