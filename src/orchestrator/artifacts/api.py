"""The REST endpoints of artifacts: list them, read them, and upload files for work."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query, Request
from starlette.responses import Response

from common.rest.artifacts import ArtifactList, Upload
from orchestrator.artifacts.answers import listed
from orchestrator.artifacts.downloads import download, headers_for
from orchestrator.artifacts.links import PREFIX
from orchestrator.artifacts.parts import Artifacts
from orchestrator.artifacts.service import ArtifactNotFound
from orchestrator.artifacts.streams import CONTENT_TYPE, UPLOADS, stream_of
from orchestrator.http.context import trace_of
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.http.routes import Router
from orchestrator.identities.access import READ, SCHEME, MayDispatch

Responses = dict[int | str, dict[str, Any]]

BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
CONTENT: Responses = {
    200: {"content": {CONTENT_TYPE: BYTES, "text/plain": BYTES}, "description": "The content."},
    206: {"content": {CONTENT_TYPE: BYTES, "text/plain": BYTES}, "description": "The part that `Range` asks for."},
    304: {"description": "The content is the one that `If-None-Match` names."},
    404: {"content": ERROR_CONTENT, "description": "There is no such artifact, or its content is not there (2012)."},
    416: {"content": ERROR_CONTENT, "description": "The part begins behind the end of the content (1002)."},
}
NO_LINK: Responses = {403: {"content": ERROR_CONTENT, "description": "The link has expired or was changed (4003)."}}
NO_TASK: Responses = {404: {"content": ERROR_CONTENT, "description": "There is no such task (2001)."}}

router = Router(
    tags=["artifacts"],
    responses={
        422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
        500: {"content": ERROR_CONTENT},
        503: {"content": ERROR_CONTENT, "description": "The store or the database is away, or full (9003)."},
    },
)


async def get_artifacts(request: Request) -> Artifacts:
    """Return the artifacts of the running app."""
    artifacts: Artifacts = request.app.state.artifacts
    return artifacts


FromStore = Annotated[Artifacts, Depends(get_artifacts)]


@router.get(
    "/api/v1/tasks/{task_id}/artifacts", dependencies=[READ], summary="What a task keeps", responses={**NO_TASK}
)
async def list_task_artifacts(task_id: UUID, artifacts: FromStore) -> ArtifactList:
    """Return the files that the attempts of a task keep, also those that are missing, and why."""
    return listed(await artifacts.service.of_task(task_id), artifacts.links)


@router.get(
    "/api/v1/artifacts/{artifact_id}",
    dependencies=[READ],
    summary="Read an artifact",
    response_class=Response,
    responses={**CONTENT},
)
async def read_artifact(artifact_id: UUID, request: Request, artifacts: FromStore) -> Response:
    """Return the content, or the part of it that a `Range` header asks for. `ETag` is its SHA-256."""
    return await _content(artifact_id, request, artifacts)


@router.get(
    PREFIX + "{artifact_id}/{name:path}",
    dependencies=[READ],
    summary="Read an artifact by its link",
    response_class=Response,
    responses={**CONTENT, **NO_LINK},
    openapi_extra={"security": [{}, {SCHEME: []}]},
)
async def follow_link(
    artifact_id: UUID,
    name: str,
    request: Request,
    artifacts: FromStore,
    expires: Annotated[str, Query(description="When the link expires, in seconds since 1970.")] = "",
    signature: Annotated[str, Query(description="What makes it one of this orchestrator's.")] = "",
) -> Response:
    """Return the content as `GET /api/v1/artifacts/{artifact_id}` does. A signed path needs no token until it expires.

    The door has checked the signature; without one the caller needs a token.
    """
    return await _content(artifact_id, request, artifacts, name=name)


async def _content(artifact_id: UUID, request: Request, artifacts: Artifacts, *, name: str | None = None) -> Response:
    artifact, content = await artifacts.service.open(artifact_id)
    if name not in (None, artifact.name):
        content.close()
        raise ArtifactNotFound(artifact_id, f"The artifact {artifact_id} has another name.")
    headers = headers_for(artifact.name, artifact.type, artifact.sha256)
    return download(content, headers, request.headers, trace_of(request.scope))


@router.post(
    UPLOADS,
    summary="Upload a file for work",
    openapi_extra={"requestBody": {"required": True, "content": {CONTENT_TYPE: BYTES}}},
    responses={413: {"content": ERROR_CONTENT, "description": "The file is too large, or the store is full (2014)."}},
)
async def upload_file(request: Request, artifacts: FromStore, caller: MayDispatch) -> Upload:
    """Store the body as it is, and return its SHA-256, by which the `files` of work name it.

    The same content is the same upload, whoever sends it and however often.
    """
    stream, trace_id = stream_of(request.scope), trace_of(request.scope)
    return Upload.model_validate(await artifacts.uploads.store(stream, by=caller.name, trace_id=trace_id))
