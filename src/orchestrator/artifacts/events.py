"""The events that artifacts write."""

from typing import Any
from uuid import UUID

from common.protocol import ORCHESTRATOR
from orchestrator.artifacts.model import Arriving, Artifact, Attempt, Upload
from orchestrator.events.model import Kind, NewEvent


def stored(arriving: Arriving, artifact: Artifact) -> NewEvent:
    """Return the event that the content of an artifact is there."""
    return _about(Kind.ARTIFACT_STORED, artifact, arriving, {})


def missing(source: Arriving | Attempt, artifact: Artifact) -> NewEvent:
    """Return the event that the content of an artifact is not there."""
    return _about(Kind.ARTIFACT_MISSING, artifact, source, {"reason": artifact.missing})


def removed(artifact: Artifact) -> NewEvent:
    """Return the event that the content of an artifact was removed."""
    return NewEvent(
        Kind.ARTIFACT_REMOVED,
        actor=ORCHESTRATOR,
        task_id=artifact.task_id,
        attempt=artifact.attempt,
        data={**_described(artifact), "reason": artifact.missing},
    )


def upload_removed(upload: Upload) -> NewEvent:
    """Return the event that an upload was removed."""
    data = {"sha256": upload.sha256, "size": upload.size}
    return NewEvent(Kind.ARTIFACT_REMOVED, actor=ORCHESTRATOR, data=data)


def uploaded(upload: Upload, *, by: str, trace_id: UUID) -> NewEvent:
    """Return the event that somebody sent a file for work."""
    data = {"sha256": upload.sha256, "size": upload.size}
    return NewEvent(Kind.ARTIFACT_UPLOADED, actor=by, trace_id=trace_id, data=data)


def _about(kind: Kind, artifact: Artifact, source: Arriving | Attempt, more: dict[str, Any]) -> NewEvent:
    agent_id: UUID | None = source.agent_id
    return NewEvent(
        kind,
        actor=ORCHESTRATOR if agent_id is None else str(agent_id),
        task_id=artifact.task_id,
        trace_id=source.trace_id,
        request_id=source.request_id,
        agent_id=agent_id,
        attempt=artifact.attempt,
        data={**_described(artifact), **more},
    )


def _described(artifact: Artifact) -> dict[str, Any]:
    return {
        "artifact_id": str(artifact.artifact_id),
        "name": artifact.name,
        "type": artifact.type,
        "sha256": artifact.sha256,
        "size": artifact.size,
    }
