"""The families of errors and the numbers that callers and agents see.

A specific error stands beside the code that raises it and belongs to one of these families; only the HTTP edge knows
status codes.
"""

from enum import IntEnum
from typing import ClassVar


class ErrorCode(IntEnum):
    """The numbers of the protocol: 1xxx dispatch, 2xxx what exists and how it stands, 3xxx policy and approvals, 4xxx
    who may do what, 5xxx between orchestrator and agent, 9xxx the service.
    """

    UNKNOWN_WORK_TYPE = 1001
    INVALID_REQUEST = 1002
    IDEMPOTENCY_CONFLICT = 1003
    TASK_NOT_FOUND = 2001
    INVALID_STATE = 2002
    AGENT_NOT_FOUND = 2003
    DEAD_LETTER_NOT_FOUND = 2004
    LEASE_LOST = 2005
    RUN_NOT_FOUND = 2010
    RUN_NOT_POSSIBLE = 2011
    ARTIFACT_NOT_FOUND = 2012
    SERVICE_UNKNOWN = 2013
    ARTIFACT_TOO_LARGE = 2014
    POLICY_REFUSED = 3001
    APPROVAL_NOT_FOUND = 3002
    APPROVAL_NOT_POSSIBLE = 3003
    APPROVAL_MISMATCH = 3004
    CONFINEMENT_NOT_POSSIBLE = 3005
    SECRET_NOT_AVAILABLE = 3006
    APPROVAL_DENIED = 3007
    UNAUTHENTICATED = 4001
    IDENTITY_NOT_FOUND = 4002
    FORBIDDEN = 4003
    ENROLMENT_REFUSED = 4004
    TOO_MANY_REQUESTS = 4029
    TIMEOUT = 5001
    AGENT_UNAVAILABLE = 5002
    INVALID_MESSAGE = 5003
    AUTHENTICATION_FAILED = 5004
    RESOURCE_LIMIT = 5005
    UNSUPPORTED_WORK_TYPE = 5006
    NOT_FOUND = 9004
    UNAVAILABLE = 9003
    INTERNAL = 9000


class ChiffonError(Exception):
    """The root of everything this product raises on purpose."""

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL


class Invalid(ChiffonError):
    """The caller asked for something that cannot be understood or is not allowed by the contract."""

    code = ErrorCode.INVALID_REQUEST


class InvalidField(Invalid, ValueError):
    """One field has a value that is not allowed."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NotFound(ChiffonError):
    """The thing asked for does not exist."""

    code = ErrorCode.NOT_FOUND


class Conflict(ChiffonError):
    """What was asked contradicts what is already true."""

    code = ErrorCode.INVALID_STATE


class Unavailable(ChiffonError):
    """Something that is needed cannot be reached right now; trying again later may succeed."""

    code = ErrorCode.UNAVAILABLE


class TooManyRequests(ChiffonError):
    """Too much was asked with one token, or from one address; it may be asked again after so many seconds."""

    code = ErrorCode.TOO_MANY_REQUESTS

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StartupRefused(ChiffonError):
    """The process will not start; the message says what is wrong and what to do."""
