"""The one shape of every error: problem details (RFC 9457) that also carry a code, a message and the trace."""

from uuid import UUID

from pydantic import Field

from common.rest.base import Answer


class FieldProblem(Answer):
    """One field of a request that is wrong."""

    field: str = Field(description="Which part of the request, as a path.", examples=["body.priority"])
    message: str = Field(description="What is wrong with it, or what is allowed.")


class ErrorResponse(Answer):
    """What every error looks like."""

    type: str = Field(default="about:blank", description="The kind of problem (RFC 9457).")
    title: str = Field(description="The HTTP status in words.", examples=["Not Found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="What happened, for people.")
    error_code: int = Field(ge=1000, le=9999, description="What happened, for programs.", examples=[2001])
    error_message: str = Field(description="The same as `detail`.")
    trace_id: UUID | None = Field(default=None, description="Finds this request in the logs.")
    errors: list[FieldProblem] = Field(default_factory=list, description="The fields that are wrong, if any.")
