"""Every error as one JSON shape: problem details (RFC 9457) that also carry a code, a message and the trace."""

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from uuid import UUID

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from common.errors import ChiffonError, ErrorCode, Invalid, InvalidField, TooManyRequests
from common.fields import place_in, problem_in
from common.rest.errors import ErrorResponse, FieldProblem
from orchestrator.database.pool import is_outage
from orchestrator.http.context import trace_of

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
# What routes say about their errors. Not FastAPI's `model`, of which it makes a validator for each route and status:
# nobody uses those, and they took half of the time in which an app is made.
ERROR_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
AGAIN_SOON: Mapping[str, str] = MappingProxyType({"retry-after": "1"})
# RFC 6455: a WebSocket's reason has room for 123 bytes.
REASON_BYTES = 120
BAD_PARAMETERS = 4400

STATUS_OF: Mapping[ErrorCode, HTTPStatus] = MappingProxyType(
    {
        ErrorCode.UNKNOWN_WORK_TYPE: HTTPStatus.BAD_REQUEST,
        ErrorCode.INVALID_REQUEST: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.IDEMPOTENCY_CONFLICT: HTTPStatus.CONFLICT,
        ErrorCode.TASK_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.INVALID_STATE: HTTPStatus.BAD_REQUEST,
        ErrorCode.AGENT_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.DEAD_LETTER_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.LEASE_LOST: HTTPStatus.CONFLICT,
        ErrorCode.RUN_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.RUN_NOT_POSSIBLE: HTTPStatus.CONFLICT,
        ErrorCode.ARTIFACT_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.SERVICE_UNKNOWN: HTTPStatus.BAD_REQUEST,
        ErrorCode.ARTIFACT_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        ErrorCode.POLICY_REFUSED: HTTPStatus.FORBIDDEN,
        ErrorCode.APPROVAL_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.APPROVAL_NOT_POSSIBLE: HTTPStatus.CONFLICT,
        ErrorCode.APPROVAL_MISMATCH: HTTPStatus.CONFLICT,
        ErrorCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
        ErrorCode.IDENTITY_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.FORBIDDEN: HTTPStatus.FORBIDDEN,
        ErrorCode.ENROLMENT_REFUSED: HTTPStatus.FORBIDDEN,
        ErrorCode.TOO_MANY_REQUESTS: HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    }
)


class UnsupportedContent(Invalid):
    """A body is of a type, or in an encoding, that is not read here; the message names what is."""


def status_of(error: ChiffonError) -> HTTPStatus:
    """Return the HTTP status for an error of ours."""
    if isinstance(error, UnsupportedContent):
        return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return STATUS_OF.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)


def headers_of(error: ChiffonError) -> Mapping[str, str]:
    """Return the headers that the answer to an error of ours needs."""
    if error.code is ErrorCode.UNAUTHENTICATED:
        return {"www-authenticate": 'Bearer realm="chiffon"'}
    if isinstance(error, TooManyRequests):
        return {"retry-after": str(max(1, math.ceil(error.retry_after)))}
    if error.code is ErrorCode.UNAVAILABLE:
        return AGAIN_SOON
    if isinstance(error, UnsupportedContent):
        return {"accept": "application/json", "accept-encoding": "identity"}
    return {}


def close_code(error: ChiffonError) -> int:
    """Return the code with which a WebSocket is closed for an error of ours: 4000 and the HTTP status.

    What is wrong with a WebSocket's request can only be its parameters.
    """
    return BAD_PARAMETERS if isinstance(error, Invalid) else 4000 + status_of(error)


def reason_of(error: ChiffonError) -> str:
    """Return what happened, as far as a WebSocket's reason has room for it."""
    return str(error).encode("utf-8", "replace")[:REASON_BYTES].decode("utf-8", "ignore")


def problem(
    status: HTTPStatus, code: int, message: str, trace_id: UUID | None, errors: list[FieldProblem] | None = None
) -> ErrorResponse:
    """Return the body for an error."""
    return ErrorResponse(
        title=status.phrase,
        status=status,
        detail=message,
        error_code=code,
        error_message=message,
        trace_id=trace_id,
        errors=errors or [],
    )


def problem_of(error: ChiffonError, trace_id: UUID | None) -> ErrorResponse:
    """Return the body for an error of ours."""
    fields = [FieldProblem(field=error.field, message=error.problem)] if isinstance(error, InvalidField) else None
    return problem(status_of(error), error.code, str(error), trace_id, fields)


def validation_problem(problems: Sequence[Any], trace_id: UUID | None, given: Any, model: Any) -> ErrorResponse:
    """Return the body for what pydantic found in what was `given` for a model.

    The input is never repeated, for it may hold a secret.
    """
    fields = [
        FieldProblem(
            field=".".join(map(str, place_in(given, found["loc"]))) or "body", message=problem_in(found, model)
        )
        for found in problems[:20]
    ]
    message = "; ".join(f"{found.field}: {found.message}" for found in fields[:3])
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, ErrorCode.INVALID_REQUEST, message, trace_id, fields)


def response(body: ErrorResponse, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer that carries a body."""
    return JSONResponse(
        body.model_dump(mode="json"), status_code=body.status, media_type=MEDIA_TYPE, headers=dict(headers or {})
    )


def install(app: FastAPI) -> None:
    """Have every error of the app answered in this shape."""

    @app.exception_handler(ChiffonError)
    async def ours(connection: Request | WebSocket, error: ChiffonError) -> JSONResponse | None:
        if isinstance(connection, WebSocket):
            # A browser is told the code and the reason only of a WebSocket that was open.
            await connection.accept()
            await connection.close(close_code(error), reason_of(error))
            return None
        return response(problem_of(error, trace_of(connection.scope)), headers_of(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        field = request.scope["route"].body_field
        given = {"body": error.body, "query": dict(request.query_params), "path": request.path_params}
        model = None if field is None else field.field_info.annotation
        return response(validation_problem(error.errors(), trace_of(request.scope), given, model))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> JSONResponse:
        # The framework's own 400 means a body that it could not parse at all, which is a bad body like any other.
        unparsed = error.status_code == HTTPStatus.BAD_REQUEST
        status = HTTPStatus.UNPROCESSABLE_ENTITY if unparsed else HTTPStatus(error.status_code)
        code = ErrorCode.NOT_FOUND if status is HTTPStatus.NOT_FOUND else ErrorCode.INVALID_REQUEST
        return response(problem(status, code, str(error.detail), trace_of(request.scope)), error.headers)


def unexpected(scope: Scope, error: Exception) -> JSONResponse:
    """Return the answer to a request that failed for no fault of its caller; the log has what the answer hides."""
    trace_id = trace_of(scope)
    if is_outage(error):
        log.error("request.database_away", extra={"trace_id": trace_id, "error": repr(error)})
        message = "The database cannot do this right now; try again."
        return response(problem(HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.UNAVAILABLE, message, trace_id), AGAIN_SOON)
    log.error("request.failed", exc_info=error, extra={"trace_id": trace_id})
    message = "Something went wrong inside the orchestrator; its log has the trace."
    return response(problem(HTTPStatus.INTERNAL_SERVER_ERROR, ErrorCode.INTERNAL, message, trace_id))
