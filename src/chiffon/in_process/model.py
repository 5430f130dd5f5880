"""An execution, and what can be wrong with asking for one."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from common.canonical import canonical_json
from common.errors import Conflict, ErrorCode, Invalid, NotFound
from common.json_rules import check_json, check_line, check_size
from common.lifecycle import Change, InvalidTransition, Status
from common.visible import is_hidden
from common.work import MAX_PARAMETERS_BYTES

LONGEST_NAME = 200


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


class ExecutionHasEnded(InvalidTransition):
    """The execution is completed or failed, so it cannot be cancelled."""

    def __init__(self, status: Status) -> None:
        super().__init__(status, Change.CANCEL)

    def __str__(self) -> str:
        return f"The execution has ended: it is {self.status}, so it cannot be cancelled any more."


class BadExecution(Invalid, ValueError):
    """An argument is not allowed; the message begins with its name."""


class WorkFailed(Exception):
    """Raise it in an executor to say how its work failed; `retryable`: another attempt may end differently."""

    def __init__(self, message: str, *, code: int | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Job:
    """Work to be done. It gets an id when it has none. `requested_by` is the person who wants it, if one does."""

    command: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    approval_id: str | None = None
    execution_id: str | None = None
    requested_by: str | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """One piece of work and where it stands. Times are in UTC. `result` is what its executor returned.

    `digest` is SHA-256 over exactly the command and the payload, in hex. `refused`: a gate refused to start it, so that
    nothing ran, and it can be approved. Approvals are possible until `approval_expires_at`; what is approved
    must begin before then, and begins once.
    """

    execution_id: str
    command: str
    payload: Mapping[str, Any]
    digest: str
    approval_id: str | None
    requested_by: str | None
    status: Status
    max_attempts: int
    created_at: datetime
    approval_expires_at: datetime | None
    approved_by: str | None = None
    refused: bool = False
    attempt: int = 0
    result: Any = None
    error_message: str | None = None
    error_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """An execution that is the claimer's, until it says what came of it. `fence` tells its attempt from every other."""

    execution: Execution
    fence: int


def digest(command: str, payload: Mapping[str, Any]) -> str:
    """Return SHA-256 over what is to run, in hex."""
    return hashlib.sha256(canonical_json({"command": command, "payload": payload})).hexdigest()


def frozen_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy that its caller cannot change any more; raises `BadExecution` for what JSON cannot hold."""
    try:
        copy: dict[str, Any] = check_json(json.loads(json.dumps(dict(payload), ensure_ascii=False)))
        check_size(copy, MAX_PARAMETERS_BYTES)
    except (TypeError, RecursionError) as error:
        raise BadExecution(f"payload: must be a JSON object: {error}") from None
    except ValueError as error:
        raise BadExecution(f"payload: {error}") from None
    return copy


def check_text_argument(name: str, text: str, *, longest: int = LONGEST_NAME) -> None:
    """Raise `BadExecution`, which names the argument, for a text that is no text, empty, too long or not storable."""
    if not isinstance(text, str) or not 1 <= len(text) <= longest:
        raise BadExecution(f"{name}: must be a text of 1 to {longest} characters")
    try:
        check_line(text)
    except ValueError as error:
        raise BadExecution(f"{name}: {error}") from None


def check_name_argument(name: str, text: str) -> None:
    """Raise `BadExecution` for a text that is no name of a person, or that looks like another one."""
    check_text_argument(name, text)
    if text != text.strip() or any(map(is_hidden, text)):
        raise BadExecution(f"{name}: must not begin or end with a blank, nor have characters that cannot be seen")
