"""Artifacts as answers of the REST API."""

from collections.abc import Iterable

from common.rest import artifacts as rest
from orchestrator.artifacts.links import Links
from orchestrator.artifacts.model import Artifact


def listed(found: Iterable[Artifact], links: Links) -> rest.ArtifactList:
    """Return artifacts with signed paths to those whose content is there."""
    return rest.ArtifactList(items=[shown(one, links) for one in found])


def shown(artifact: Artifact, links: Links) -> rest.Artifact:
    """Return an artifact, with a signed path to it if its content is there."""
    return rest.Artifact(
        artifact_id=artifact.artifact_id,
        task_id=artifact.task_id,
        attempt=artifact.attempt,
        name=artifact.name,
        path=artifact.path,
        type=artifact.type,
        sha256=artifact.sha256,
        size=artifact.size,
        created_at=artifact.created_at,
        stored_at=artifact.stored_at if artifact.is_stored else None,
        missing=artifact.missing,
        link=links.path_to(artifact.artifact_id, artifact.name) if artifact.is_stored else None,
    )
