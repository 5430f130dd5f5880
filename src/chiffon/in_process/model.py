"""An execution, and what can be wrong with asking for one."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from common.errors import Conflict, ErrorCode, Invalid, NotFound
from common.lifecycle import Status


class ExecutionConflict(Conflict):
    """The id is taken by other content."""

    code = ErrorCode.IDEMPOTENCY_CONFLICT

    def __init__(self, execution_id: str) -> None:
        super().__init__(
            f"execution_id {execution_id!r} was already used for other content. "
            "Submit the same content to get the same result, or a new id for new work."
        )


class UnknownExecution(NotFound):
    code = ErrorCode.TASK_NOT_FOUND

    def __init__(self, execution_id: str) -> None:
        super().__init__(f"No execution has the id {execution_id!r}.")


class BadExecution(Invalid, ValueError):
    """What was submitted cannot be stored, or nobody here could run it."""


class WorkFailed(Exception):
    """Raise it in an executor to say how its work failed; `retryable`: another attempt may end differently."""

    def __init__(self, message: str, *, code: int | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Execution:
    """One piece of work and where it stands. Times are in UTC. `result` is what its executor returned."""

    execution_id: str
    command: str
    payload: Mapping[str, Any]
    approval_id: str | None
    status: Status
    attempt: int
    max_attempts: int
    result: Any
    error_message: str | None
    error_code: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Claim:
    """An execution that is the claimer's, until it says what came of it. `fence` tells its attempt from every other."""

    execution: Execution
    fence: int


def digest(command: str, payload: Mapping[str, Any], approval_id: str | None) -> str:
    """Return SHA-256 over what is asked for; raises `BadExecution` for what JSON cannot hold."""
    try:
        text = json.dumps([command, payload, approval_id], sort_keys=True, ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()
    except (TypeError, ValueError) as error:
        raise BadExecution(f"payload: must be a JSON object: {error}") from None
