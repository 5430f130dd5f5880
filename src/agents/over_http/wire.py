"""Translate an agent's messages into requests of the queue API, and its answers into messages of the agent."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from common.messages import (
    ArtifactPiece,
    GrantedTask,
    OutputChunk,
    ResultStatus,
    StatusUpdate,
    StepReport,
    WantFile,
    WorkRequest,
    WorkResult,
    WorkStatus,
)
from common.orders import FilePiece
from common.rest.jobs import (
    LONGEST_NAME,
    CompleteRequest,
    FailRequest,
    FileAnswer,
    Job,
    JobGrant,
    OwnerRequest,
)

STOPPED = "The work was stopped."

# The fields of a request by their names in Python.
Fields = Mapping[str, Any]


def granted(job: Job, grant: JobGrant | None, *, claim_id: UUID, lease_seconds: float) -> GrantedTask:
    """Return the grant that a broker would have brought."""
    terms = {} if grant is None else dict(grant)
    work = WorkRequest(task_id=job.id, work_type=job.type, parameters=job.payload, hints=terms.pop("hints", {}))
    return GrantedTask(
        claim_id=claim_id,
        work=work,
        trace_id=job.trace_id,
        request_id=job.request_id,
        attempt=job.attempt,
        lease_seconds=lease_seconds,
        max_output_bytes=job.max_output_bytes,
        **terms,
    )


def heartbeat(update: StatusUpdate) -> Fields:
    """Return what an agent says of itself, as a `WorkerReport`."""
    return {
        "agent_type": update.agent_type,
        "hostname": update.hostname[:LONGEST_NAME],
        "version": update.version[:LONGEST_NAME],
        "work_types": update.work_types,
        "slots": update.slots,
        "current_jobs": update.current_tasks,
        "status": update.status,
        "resources": update.resources,
        "labels": update.labels,
        "started_at": update.started_at,
        "trusted_keys": update.trusted_keys,
        "sent_at": update.sent_at,
        "boot_id": update.boot_id,
        "schemas": update.schemas or None,
    }


def output(chunk: OutputChunk, *, attempt: int) -> Fields:
    """Return a piece of output, as an `OutputRequest`."""
    return {"attempt": attempt, **dict(chunk)}


def progress(status: WorkStatus) -> Fields:
    """Return where a job stands, as a `ProgressRequest`."""
    return {"attempt": status.attempt, "progress": status.progress}


def steps(reports: Sequence[StepReport], *, attempt: int) -> Fields:
    """Return reports of inner steps, as a `StepsRequest`."""
    return {"attempt": attempt, "steps": list(reports)}


def piece(kept: ArtifactPiece, *, attempt: int) -> Fields:
    """Return a piece of a file that a job keeps, as an `ArtifactRequest`."""
    return {"attempt": attempt, **dict(kept)}


def wanted(want: WantFile) -> Fields:
    """Return what an agent wants of a file, as a `FileRequest`."""
    return {"attempt": want.attempt, "path": want.path, "offset": want.offset}


def brought(answer: FileAnswer, want: WantFile) -> FilePiece:
    """Return the piece of a file that a broker would have brought."""
    return FilePiece(want_id=want.want_id, **answer.model_dump(exclude={"pending"}))


def end(result: WorkResult) -> tuple[type[OwnerRequest], Fields]:
    """Return the request that ends a job; the pieces of output go ahead of it."""
    ending = {
        "attempt": result.attempt,
        "result_summary": storable(result.output),
        "artifacts_path": result.artifacts_path,
        "exit_code": result.exit_code,
        "result": result.result,
        "duration_ms": result.duration_ms,
        "output_bytes": result.output_bytes,
        "output_dropped": result.output_dropped or None,
    }
    if result.status is ResultStatus.COMPLETED:
        return CompleteRequest, ending
    return FailRequest, ending | {
        "error_message": storable(result.error_message or STOPPED),
        "error_code": result.error_code,
        "retryable": result.retryable,
        "started": result.started,
        "cancelled": result.status is ResultStatus.CANCELLED,
    }


def storable(text: str) -> str:
    """Return the text without what no database stores, such as half of a character in the name of a file."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
